"""`make bench`: one table of all benchmarks. `python -m benchmarks NAME...` runs some, `--list` says which there are.

Nothing is asserted: what is missed is said, and the exit status tells only whether every benchmark came to its end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.measurement import Failure, Measurement
from benchmarks.running import found_benchmarks, run_all
from benchmarks.table import Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run; 0, 1 if a benchmark failed, 130 if somebody interrupted."""
    found = found_benchmarks()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="One table of what was measured.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="the benchmarks to run; default: all")
    parser.add_argument("--list", action="store_true", help="say which there are, and run none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file, too")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in found]:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(found)}")
    if given.list:
        for benchmark in found.values():
            print(f"{benchmark.name:18} {benchmark.about}")
        return 0
    table, machine = Table(), describe_machine()
    table.begin(machine=machine)
    try:
        run_all([found[name] for name in given.names or found], table=table)
    except KeyboardInterrupt:
        return 130
    finally:
        table.end()
        if given.json is not None:
            given.json.write_text(json.dumps(as_json(table, machine=machine), indent=1) + "\n", encoding="utf-8")
    return 1 if table.failed else 0


def as_json(table: Table, *, machine: str) -> dict[str, object]:
    """The rows by benchmark, as a program reads them."""
    kept = {
        name: {
            "measurements": [row.to_fields() for row in rows if isinstance(row, Measurement)],
            "remarks": [row for row in rows if isinstance(row, str)],
            "failures": [asdict(row) for row in rows if isinstance(row, Failure)],
        }
        for name, rows in table.rows.items()
    }
    return {"schema": "stillroom/benchmarks/1", "machine": machine, "benchmarks": kept}


if __name__ == "__main__":
    sys.exit(main())
