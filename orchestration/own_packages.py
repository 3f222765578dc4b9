"""Our own packages are the ones that are imported, whatever else is called as they are.

`configs`, `cache` and `evaluation` are everyday words: a folder of that name in the working directory (`python -m`) or
on PYTHONPATH comes before what is installed. So these names are looked up in one place only. `stillroom`, with which
the command line begins, sees to it that `orchestration` itself is ours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds them."""

NAMES = frozenset({"configs", "cache", "teacher_server", "student_train", "evaluation", "orchestration"})


class OwnPackages:
    """Finds these packages below `ROOT`, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where one of them is; see `importlib.abc.MetaPathFinder.find_spec`."""
        return PathFinder.find_spec(fullname, [str(ROOT)]) if fullname in NAMES else None


def import_own_packages() -> None:
    """Look them up below `ROOT` from now on, in this process."""
    if not any(isinstance(finder, OwnPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, OwnPackages())


def own_command(module: str, *options: str) -> list[str]:
    """The command that calls `main` of one of our modules in a Python of its own, which gets these options."""
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); import stillroom; stillroom.import_orchestration(); "
        f"from {module} import main; main()"
    )
    return [sys.executable, "-P", *options, "-c", code]
