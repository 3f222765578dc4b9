"""Rollouts from the mixture of teacher and student, against the least that an on-policy student costs.

The floor is the student's engine writing the same number of tokens alone, and one pass of the teacher over them. It is
taken beside every rollout, on the same engines. The pair is that of the quickstart; nothing ends before its length, so
both sides have the same tokens. The student is not trained, which changes what it writes and not how fast.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measurement import Measurement, at_most
from orchestration.environment import prepare_environment

if TYPE_CHECKING:
    from orchestration.cluster.engine_pool import EnginePool
    from orchestration.rollouts.sequence import RolloutPrompt

QUICKSTART = Path("configs/quickstart.yaml")
PROMPTS, LENGTHS, LAYERS, ALPHA, K = 32, (32, 64), 20, 0.2, 64
ROUNDS = 2
"""Of each length; the best of either side counts."""
LARGEST_RATIO = 1.5


def bench_rollout_sampling() -> Iterator[Measurement]:
    """Rollouts of each length beside their floor."""
    with tempfile.TemporaryDirectory() as folder, quickstart_engines(Path(folder)) as (student, teacher, prompts):
        yield from compare_lengths(student, teacher, prompts)


def compare_lengths(
    student: EnginePool, teacher: EnginePool, prompts: Sequence[RolloutPrompt]
) -> Iterator[Measurement]:
    """Rollouts and their floor in turn."""
    from orchestration.rollouts.mixture import sample_rollout
    from orchestration.rollouts.sequence import Sampling

    for length in LENGTHS:
        mixed, floors = [], []
        for number in range(ROUNDS):
            sampling = Sampling(alpha=ALPHA, seed=(number,), version=0, max_new_tokens=length, stop_ids=(), k=K)
            _, tally = sample_rollout(prompts, student=student, teacher=teacher, sampling=sampling)
            mixed.append((tally.sampling_seconds + tally.scoring_seconds, tally))
            floors.append(floor(student, teacher, prompts, length=length, number=number))
        seconds, tally = min(mixed, key=lambda each: each[0])
        written, scored = (min(part) for part in zip(*floors, strict=True))
        note = (
            f"{tally.rounds} turns, {tally.teacher_tokens} tokens by the teacher, {tally.recomputed_tokens} prefix "
            "tokens computed again"
        )
        peers = {"floor: writing": written, "scoring": scored}
        yield Measurement(f"rollout of {PROMPTS} x {length} tokens", seconds, "s", digits=1, peers=peers, note=note)
        yield at_most(f"rollout of {length} tokens / its floor", seconds / (written + scored), LARGEST_RATIO)


def floor(
    student: EnginePool, teacher: EnginePool, prompts: Sequence[RolloutPrompt], *, length: int, number: int
) -> tuple[float, float]:
    """Seconds in which the student writes all responses alone, and in which the teacher scores them."""
    from cache import GenerateRequest, ScoreRequest, TeacherRecord

    asked = [
        GenerateRequest(each.token_ids, (), length, temperature=1.0, sampling_seed=number, replicate=each.number)
        for each in prompts
    ]
    written = student.answer(asked, k=1)
    records = [outcome for outcome in written.outcomes if isinstance(outcome, TeacherRecord)]
    scored = teacher.answer([ScoreRequest(tuple(each.token_ids.tolist()), each.prompt_len) for each in records], k=K)
    return written.seconds, scored.seconds


@contextmanager
def quickstart_engines(folder: Path) -> Iterator[tuple[EnginePool, EnginePool, list[RolloutPrompt]]]:
    """Engines of the student and of the teacher, warm, and the prompts."""
    # Before Ray is imported, which reads it once.
    prepare_environment(ray_address=None)
    from configs.loading import load_config
    from orchestration.cluster.engine_pool import EnginePool
    from orchestration.cluster.planned_engine import engine_spec
    from orchestration.cluster.private import cluster
    from orchestration.inputs.models import materialise, open_model
    from orchestration.inputs.prompt_splits import load_prompts
    from orchestration.inputs.real_paths import resolve_paths
    from orchestration.inputs.teachers import identity_of
    from orchestration.rollouts.sequence import RolloutPrompt
    from student_train.starts.derive import derive_student

    config = resolve_paths(load_config(QUICKSTART), config_dir=QUICKSTART.parent)
    files = materialise(config.teacher.model, models_root=config.runtime.models_root)
    small = open_model(derive_student(files.directory, folder / "student", keep_layers=LAYERS), label="student")
    texts = load_prompts(
        config.data, tokenizer=files.tokenizer, stop_ids=files.stop_ids, max_new_tokens=max(LENGTHS)
    ).splits["train"]
    prompts = [RolloutPrompt(each.prompt_ids, number=number) for number, each in enumerate(texts[:PROMPTS])]
    pools = []
    with ExitStack() as stack:
        stack.enter_context(cluster(address=None, gpus=0))
        for number, model in enumerate((small, files)):
            spec = engine_spec(
                model, identity_of(model, config=config, dtype=config.teacher.dtype),
                settings=config.runtime.teacher_engine, k=K, accelerator="cpu", log_dir=folder,
            )  # fmt: skip
            pools.append(EnginePool(replace(spec, purpose="rollout", seed=1000 * number)))
            stack.callback(pools[-1].release)
        # Nobody's first step counts: it is slower than the rest.
        floor(*pools, prompts, length=4, number=-1)
        yield pools[0], pools[1], prompts
