"""`make bench`: every benchmark, one after the other."""

from __future__ import annotations

from benchmarks.cache_reads import bench_cache_reads
from benchmarks.kd_step import bench_kd_step

for bench in (bench_cache_reads, bench_kd_step):
    for line in bench():
        print(line)
