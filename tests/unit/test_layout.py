"""Where a test stands: beside its module, by folder and name. What is about the whole tree lies in `tests/unit` itself."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "tests" / "unit"
PACKAGES = ("configs", "cache", "teacher_server", "student_train", "evaluation", "orchestration")

SHORT_LINES = 25
"""A module of at most so many lines is tested with those that use it."""

NOT_OF_A_MODULE = {
    "configs/test_shipped_configs.py": "the YAML files beside the modules",
    "configs/test_shipped_prompts.py": "the prompts beside the modules",
    "configs/test_shipped_tasks.py": "the tasks beside the modules",
}
"""Files of tests that belong to something else than a module, and to what."""

WITHOUT_A_TEST = {
    "cache/disk/storage.py": "protocols; tests/support/storage_conformance.py says what they promise",
    "cache/protocols.py": "protocols; tests/support/conformance.py says what they promise",
    "student_train/training/learner.py": "abstract; tests of sequences.py say what a learner does",
    "orchestration/cluster/calibration.py": "a task in a process of its own: tests/end_to_end/test_pipeline.py",
    "evaluation/results.py": "plain values without methods",
    "teacher_server/http/openai/answer_bodies.py": "plain values without methods",
    "teacher_server/http/sequence_desk.py": "a kind of desk: tests/unit/teacher_server/http/test_desk.py",
    "evaluation/report/blocks.py": "plain values without methods",
    "orchestration/commands/cache_verify.py": "a part of the cache's command: tests/unit/orchestration/commands/test_cache.py",
    "orchestration/fill/work.py": "protocols; tests/unit/orchestration/fill/test_sequences.py and test_signals.py",
    "orchestration/entry.py": "one function that runs the pipeline: tests/end_to_end/test_pipeline.py",
}
"""Modules without a file of tests, and what stands in for it."""


def module_of(test: Path) -> Path:
    """The module, from the root of the code, that a test file is named after."""
    name = test.name.removeprefix("test_")
    return test.relative_to(UNIT).with_name("__init__.py" if name == "init.py" else name)


def test_every_test_stands_where_its_module_stands() -> None:
    files = {path.relative_to(UNIT).as_posix(): path for path in UNIT.glob("*/**/test_*.py")}
    lost = {name: str(module_of(path)) for name, path in files.items() if not (ROOT / module_of(path)).is_file()}
    strangers = {name: module for name, module in lost.items() if name not in NOT_OF_A_MODULE}
    assert strangers == {}, "no such module: rename or split the test, or move it to tests/end_to_end"
    assert set(NOT_OF_A_MODULE) <= set(lost), "an exception that is not needed"


def test_every_module_has_its_test_beside_it() -> None:
    modules = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py")
    bare = {
        module.relative_to(ROOT).as_posix()
        for module in modules
        if len(module.read_text(encoding="utf-8").splitlines()) > SHORT_LINES
        and not (UNIT / module.relative_to(ROOT).with_name(f"test_{module.name}")).is_file()
    }
    assert bare - set(WITHOUT_A_TEST) == set(), "no test beside these modules: write it, or say here what stands in"
    assert set(WITHOUT_A_TEST) - bare == set(), "an exception that is not needed"
