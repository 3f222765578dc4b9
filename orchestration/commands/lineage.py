"""`distill lineage STUDENT`: where a student comes from, step by step, and whether all of it is as it was."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from configs import ConfigError

if TYPE_CHECKING:
    from orchestration.lineage.steps import Step
    from orchestration.outputs.console import Console

SIGNS = {"holds": "✓", "broken": "✗", "missing": "?", "said": " "}


def add_lineage(command: argparse.ArgumentParser) -> None:
    """Its arguments, and what it runs."""
    command.add_argument("student", type=Path, metavar="STUDENT", help="a student, e.g. runs/students/<digest>")
    command.add_argument(
        "--run-root", type=Path, metavar="DIR", help="where its run lies, of a student that was copied elsewhere"
    )
    key = command.add_mutually_exclusive_group()
    key.add_argument("--sign", type=Path, metavar="KEY", help="sign the student with a private Ed25519 key (PEM) first")
    key.add_argument("--signed-by", type=Path, metavar="KEY", help="require a signature by the other half of this key")
    command.add_argument(
        "--cyclonedx", type=Path, metavar="FILE", help="write a bill of materials (CycloneDX 1.6, JSON) as well"
    )
    command.add_argument("--json", action="store_true", help="print the steps as JSON")
    command.set_defaults(command=lineage)


def lineage(arguments: argparse.Namespace) -> int:
    """Print every step; the exit code is 1 where one is broken.

    Nothing is signed that does not hold.

    Raises:
        ConfigError: there is no such directory, a key is not one, or a bill of materials cannot be written.
        ModelError: the directory holds no student that was made here.
    """
    from orchestration.lineage.bom import write_bom
    from orchestration.lineage.signing import sign, signed_by
    from orchestration.lineage.steps import Step
    from orchestration.lineage.walk import walk

    if not arguments.student.is_dir():
        raise ConfigError(f"{arguments.student} is not a directory: name that of a student, runs/students/<digest>")
    steps = list(walk(arguments.student, run_root=arguments.run_root))
    broken = any(step.state == "broken" for step in steps)
    if arguments.signed_by is not None:
        steps.append(signed_by(arguments.student, key=arguments.signed_by))
    elif arguments.sign is not None and not broken:
        path = sign(arguments.student, key=arguments.sign)
        steps.append(Step("signature", "said", f"written to {path}"))
    if arguments.cyclonedx is not None:
        write_bom(arguments.student, arguments.cyclonedx, run_root=arguments.run_root)
        steps.append(Step("bill", "said", f"of materials written to {arguments.cyclonedx}"))
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(step) for step in steps], indent=2) + "\n")
    else:
        from orchestration.outputs.console import Console

        _show(steps, Console(sys.stdout))
    return 1 if any(step.state == "broken" for step in steps) else 0


def _show(steps: Sequence[Step], console: Console) -> None:
    width = max(len(step.what) for step in steps)
    for step in steps:
        console.say(f"{SIGNS[step.state]} {step.what:<{width}}  {step.says}")
    count = Counter(step.state for step in steps)
    console.say(
        f"{count['holds']} steps hold, {count['broken']} are broken, {count['missing']} could not be looked at."
    )
