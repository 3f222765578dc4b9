"""The door of the command line: a module of a name that nobody else has, which finds our own `orchestration`.

`orchestration`, `configs` and `cache` are everyday words. A folder of such a name on PYTHONPATH comes before what is
installed, and `orchestration.own_packages` can only act once ours is the one that was imported. So the script
`distill` and the processes that a run starts come in here; `python -m stillroom` does the same.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def import_orchestration() -> None:
    """Import the package that lies beside this file, which looks after the names of all the others."""
    if "orchestration" in sys.modules:
        return
    spec = PathFinder.find_spec("orchestration", [str(Path(__file__).resolve().parent)])
    assert spec is not None and spec.loader is not None
    package = sys.modules["orchestration"] = module_from_spec(spec)
    spec.loader.exec_module(package)


def main() -> int:
    """`distill`; see `orchestration.commands.main`."""
    import_orchestration()
    from orchestration.commands.main import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
