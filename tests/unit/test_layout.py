"""Where a test stands: beside its module, by folder and name. What is about the whole tree lies in `tests/unit` itself."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "tests" / "unit"

NOT_OF_A_MODULE = {
    "configs/test_shipped_configs.py": "the YAML files beside the modules",
    "configs/test_shipped_prompts.py": "the prompts beside the modules",
    "orchestration/cluster/test_private_places.py": "cluster.private, whose test is in two files",
}
"""Files of tests that belong to something else than a module, and to what."""


def module_of(test: Path) -> Path:
    """The module, from the root of the code, that a test file is named after."""
    name = test.name.removeprefix("test_")
    return test.relative_to(UNIT).with_name("__init__.py" if name == "init.py" else name)


def test_every_test_stands_where_its_module_stands() -> None:
    files = {path.relative_to(UNIT).as_posix(): path for path in UNIT.glob("*/**/test_*.py")}
    lost = {name: str(module_of(path)) for name, path in files.items() if not (ROOT / module_of(path)).is_file()}
    strangers = {name: module for name, module in lost.items() if name not in NOT_OF_A_MODULE}
    assert strangers == {}, "no such module: rename or split the test, or move it to tests/end_to_end"
