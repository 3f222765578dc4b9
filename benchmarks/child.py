"""The process of one benchmark: its rows go to a descriptor of their own, and whatever else is printed to a log.

`python -m benchmarks.child DESCRIPTOR MODULE FUNCTION ARGUMENTS`; the arguments are a list in JSON. Who started it has
pointed standard output and standard error at the log, for libraries in C and for the processes that are started here.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module
from typing import TextIO

from benchmarks.measurement import Measurement


def main() -> int:
    """Run the benchmark, and say what it yields as it comes; 1 if it fails."""
    descriptor, module, function, arguments = sys.argv[1:]
    # Not for processes that are started from here: as long as one of them had it, nobody could tell that all is said.
    os.set_inheritable(int(descriptor), False)  # noqa: FBT003 (the standard library's signature)
    with os.fdopen(int(descriptor), "w", encoding="utf-8") as told:
        try:
            for row in getattr(import_module(module), function)(*json.loads(arguments)):
                _tell(told, row.to_fields() if isinstance(row, Measurement) else str(row))
        except Exception as error:  # noqa: BLE001 (whatever it is, it is told, and the others go on)
            traceback.print_exc()
            _tell(told, {"failed": f"{type(error).__name__}: {error}"})
            return 1
    return 0


def _tell(told: TextIO, row: object) -> None:
    print(json.dumps(row), file=told, flush=True)


if __name__ == "__main__":
    sys.exit(main())
