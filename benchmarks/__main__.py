"""`make bench`: every benchmark, one after the other."""

from __future__ import annotations

from benchmarks.cache_growth import bench_cache_growth
from benchmarks.cache_reads import bench_cache_reads
from benchmarks.cache_size import bench_cache_size
from benchmarks.cache_writes import bench_cache_writes
from benchmarks.dealing import bench_dealing
from benchmarks.door import bench_door
from benchmarks.engine_rows import bench_engine_rows
from benchmarks.fill_queue import bench_fill_queue
from benchmarks.fill_scaling import bench_fill_scaling
from benchmarks.fill_speed import bench_fill_speed
from benchmarks.kd_step import bench_kd_step
from benchmarks.loss_memory import bench_loss_memory
from benchmarks.minillm_exact import bench_minillm_exact
from benchmarks.minillm_pair import bench_minillm_pair
from benchmarks.rollout_sampling import bench_rollout_sampling
from benchmarks.student_starts import bench_student_starts
from benchmarks.trl_step import bench_trl_step
from benchmarks.views import bench_views

BENCHMARKS = (
    bench_cache_reads,
    bench_cache_writes,
    bench_cache_size,
    bench_cache_growth,
    bench_dealing,
    bench_engine_rows,
    bench_door,
    bench_fill_queue,
    bench_fill_scaling,
    bench_fill_speed,
    bench_loss_memory,
    bench_kd_step,
    bench_trl_step,
    bench_student_starts,
    bench_minillm_exact,
    bench_minillm_pair,
    bench_rollout_sampling,
    bench_views,
)

if __name__ == "__main__":
    for bench in BENCHMARKS:
        for line in bench():
            print(line, flush=True)
