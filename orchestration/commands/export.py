"""`distill export`: a trained student for others, with its teachers' licences, or as an ONNX file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from configs import ConfigError
from configs.model_files import CARD
from orchestration.commands.predict import ONNX, require_directory


def add_export(command: argparse.ArgumentParser) -> None:
    """Its arguments, and what it runs."""
    command.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="a student, e.g. runs/students/<digest>"
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument(
        "--to",
        type=Path,
        metavar="FOLDER",
        help="copy it to a new folder, which names it, with the licences and notices that its teachers ask for",
    )
    what.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help=f"write a student of a task as ONNX there; {ONNX} in the model's directory if neither is said",
    )
    command.add_argument(
        "--cyclonedx",
        type=Path,
        metavar="FILE",
        help="with --to: write a bill of materials (CycloneDX 1.6, JSON) as well",
    )
    command.set_defaults(command=export)


def export(arguments: argparse.Namespace) -> None:
    """Copy a student so that it may be given away, or write it as an ONNX file that says what the student says.

    Raises:
        ConfigError: a licence asks for what is not there.
        ModelError: the directory holds no such student, or it cannot be written as ONNX.
    """
    require_directory(arguments.model)
    bill: Path | None = arguments.cyclonedx
    if arguments.to is None:
        if bill is not None:
            raise ConfigError(f"--cyclonedx={bill} is about a copy that is given away: name the copy with --to as well")
        _write_onnx(arguments.model, arguments.onnx or arguments.model / ONNX)
    else:
        _publish(arguments.model, arguments.to)
        if bill is not None:
            from orchestration.lineage.bom import write_bom

            write_bom(arguments.model, bill)


def _publish(model: Path, to: Path) -> None:
    from orchestration.commands.export_card import complete_card
    from student_train.papers import publish

    terms = publish(model, to)
    complete_card(model, card=to / CARD)
    from orchestration.outputs.console import Console

    console = Console(sys.stdout)
    console.say(f"{to}: {to.name}, with what its teachers' licences ask for.")
    for line in terms:
        console.say(f"No file can do this for you: {line}.")


def _write_onnx(model: Path, path: Path) -> None:
    from student_train.models.onnx_export import export_onnx
    from student_train.models.task_model import load_task_student, stored_task
    from student_train.papers import asks_for_company

    if path.resolve().parent != model.resolve() and asks_for_company(model):
        raise ConfigError(
            f"--onnx {path} would be without the licences that have to go with {model}: make a folder for both with "
            f"`distill export --model {model} --to FOLDER`, and write {ONNX} into that"
        )
    kind, labels = stored_task(model)
    difference = export_onnx(load_task_student(model, kind=kind, labels=labels), path)
    size = path.stat().st_size / 1e6
    from orchestration.outputs.console import Console

    Console(sys.stdout).say(f"{path}: {size:,.1f} MB; its logits are within {difference:.1e} of the student's.")
