"""A mistake in a configuration is one line: key, value and cure."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiment_files import complaint, one_line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "students.kd.stages.0.learnng_rate=1",
            "students.kd.stages.0.learnng_rate: unknown key; did you mean students.kd.stages.0.learning_rate?",
        ),
        ("teachr=1", "teachr: unknown key; did you mean teacher?"),
        (
            "runtime.teacher_engine.cpu=1",
            "runtime.teacher_engine.cpu: unknown key; did you mean runtime.teacher_engine.cpus?",
        ),
        (
            "generation.learning_rate=1",
            "generation.learning_rate: unknown key; did you mean students.NAME.stages.0.learning_rate?",
        ),
        ("budgets.qqq=1", "budgets.qqq: unknown key; remove it; valid here: max_gpu_hours, max_kwh, max_teacher_money"),
        ("teacher.top_k=abc", "teacher.top_k: given 'abc'; must be a whole number"),
        ("teacher.top_k='64'", "teacher.top_k: given '64'; must be a whole number"),
        ("teacher.top_k=true", "teacher.top_k: given true; must be a whole number"),
        ("teacher.top_k=64.0", "teacher.top_k: given 64.0; must be a whole number"),
        ("teacher.top_k=-1", "teacher.top_k: given -1; must be at least 0"),
        ("teacher.top_k=0", "teacher: top_k=0 keeps nothing that a teacher believes"),
        ("generation.top_p=1.5", "generation.top_p: given 1.5; must be at most 1.0"),
        ("generation.temperature=.inf", "generation.temperature: given inf; must be a finite number"),
        ("teacher.dtype=fp8", "teacher.dtype: given 'fp8'; must be one of 'float32', 'bfloat16' or 'float16'"),
        ("teacher.model.revision=1234567", "teacher.model.revision: given 1234567; must be text (put it in quotes)"),
        (
            "students.kd.init.keep_layers=few",
            "students.kd.init.keep_layers: given 'few'; must be a whole number or a list",
        ),
        (
            "students.kd.init.keep_layers=[3,1]",
            "students.kd.init: keep_layers=[3, 1] must be increasing and without repeats",
        ),
        ("students.kd.stages=[]", "students.kd.stages: given []; must be at least 1 entry, not empty"),
        ("students={}", "students: given {}; must be at least 1 entry, not empty"),
        ("teacher.model=gpt", "teacher.model: given 'gpt'; must be a block of keys"),
        ("audit={run: [privcy]}", "audit.run.0: given 'privcy'; must be one of 'privacy', 'bias', 'refusals' or 'all'"),
        ("audit={run: privcy}", "audit.run: given 'privcy'; must be one of 'privacy', 'bias', 'refusals' or 'all'"),
        ("audit={rows: 9}", "audit: rows=9 is of audits, and run names none: set run: all"),
        ("runtime=null", "runtime: given nothing; must be a block of keys"),
        ("generation.samples_per_prompt=2", "generation: samples_per_prompt=2 with temperature=0.0"),
        ("generation.max_new_tokens=9999", "data.max_prompt_tokens=256 + generation.max_new_tokens=9999"),
    ],
)
def test_a_mistake_is_one_line_with_key_value_and_cure(written: Path, override: str, words: str) -> None:
    assert one_line(written, override).startswith(f"{written}: {words}")


def test_a_bad_student_name_is_shown(written: Path) -> None:
    lines = complaint(written, "students.KD={}")
    assert lines[0].startswith(f"{written}: students.KD: given 'KD'; must be a name")


def test_a_missing_block_is_named(tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text("name: part\nteacher: {model: {hub: a/b}}\n")
    assert complaint(path) == [f"{path}: data: is required; add it", f"{path}: students: is required; add it"]


def test_several_mistakes_are_all_reported_a_line_each(written: Path) -> None:
    lines = complaint(written, "teacher.top_k=x", "generation.top_p=7", "data.trian={}")
    assert len(lines) == 3
    assert all(line.startswith(f"{written}: ") for line in lines)
    assert {line.split(": ")[1] for line in lines} == {"teacher.top_k", "generation.top_p", "data.trian"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "students.small.stages.0.learnng_rate=1",
            "students.small.stages.0.learnng_rate: unknown key; did you mean students.small.stages.0.learning_rate?",
        ),
        (
            "learning_rate=1",
            "learning_rate: unknown key; did you mean students.NAME.general.0.learning_rate or "
            "students.NAME.stages.0.learning_rate or teacher.general.0.learning_rate or teacher.prepare.0.learning_rate or",
        ),
        ("teacher.per_class=5", "teacher.per_class: unknown key; did you mean data.gold.per_class?"),
        ("data.mask=0", "data.mask: unknown key; did you mean data.augment.NAME.mask?"),
        ("teacher.top_k=8", "teacher.top_k: unknown key; remove it; valid here: answers, calibrated"),
        ("students.bag.start.cell=lstm", "students.bag.start.cell: unknown key; another kind of block takes it"),
        ("students.bag.start.kind=tree", "students.bag.start: given {'kind': 'tree'}; must be one of 'transformer', "),
        ("students.small.stages.0.objective=kd", "students.small.stages.0.objective: given 'kd'; must be one of"),
        ("students.small.stages.0.select=test_loss", "students.small.stages.0.select: select=test_loss: a checkpoint"),
        ("students.small.stages.0.data=[train, rumours]", "students.small.stages.0.data names rumours, and there are"),
        ("students.small.start.shape={}", "students.small.start.shape.layers: is required; add it"),
        ("teacher.max_tokens=many", "teacher.max_tokens: given 'many'; must be a whole number"),
        ("data.augment.rules.mask=2", "data.augment.rules.mask: given 2; must be at most 1.0"),
        ("audit={run: [privcy]}", "audit.run.0: given 'privcy'; must be one of 'privacy', 'bias', 'refusals' or 'all'"),
        ("audit={run: privcy}", "audit.run: given 'privcy'; must be one of 'privacy', 'bias', 'refusals' or 'all'"),
        ("audit={rows: 9}", "audit: rows=9 is of audits, and run names none: set run: all"),
        ("runtime=null", "runtime: given nothing; must be a block of keys"),
    ],
)
def test_a_mistake_in_a_task_experiment_is_as_clear(written_task: Path, override: str, words: str) -> None:
    assert complaint(written_task, override)[0].startswith(f"{written_task}: {words}")


def test_several_mistakes_in_a_task_experiment_are_a_line_each(written_task: Path) -> None:
    lines = complaint(written_task, "teacher.max_tokens=0", "data.trensfer=[]", "students.bag.stages.0.steps=x")
    wrong = {line.removeprefix(f"{written_task}: ").split(": ")[0] for line in lines}
    assert len(lines) == 3
    assert wrong == {"teacher.max_tokens", "students.bag.stages.0.steps", "data.trensfer"}


def test_a_task_experiment_that_lacks_blocks_names_them(tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text("name: part\ntask: task.yaml\n")
    assert complaint(path) == [f"{path}: teacher: is required; add it", f"{path}: students: is required; add it"]
