"""The command line.

`distill run | plan | fill | train | eval | evaluate | sweep | report | compare | audit | predict | export | lineage |
methods | cache | serve | ui`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from configs import ConfigError, DistillError
from configs.visible_text import visible
from orchestration.commands.argument_types import parse_count
from orchestration.commands.audit import add_audit
from orchestration.commands.compare import add_compare
from orchestration.commands.export import add_export
from orchestration.commands.last_words import last_words
from orchestration.commands.lineage import add_lineage
from orchestration.commands.methods import add_methods
from orchestration.commands.predict import add_predict
from orchestration.entry import run_pipeline
from orchestration.environment import prepare_environment, require_home
from orchestration.outputs.interrupts import stopped_by_signals

if TYPE_CHECKING:
    from configs import Experiment
    from orchestration.pipeline.experiment import Until

STAGES: dict[str, tuple[Until, str]] = {
    "run": ("eval", "run an experiment from the plan to the comparison"),
    "fill": ("fill", "ask the teacher for what the cache lacks, and stop"),
    "train": ("train", "fill and train the students, and stop"),
    "eval": ("eval", "the same as run"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and run; returns the exit code.

    0; 1 where a model could not be measured; 2 for what the user can mend before the start; 130 for Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = command_parser(argv).parse_args(argv)
    with stopped_by_signals():
        return _exit_code_of(arguments)


def _exit_code_of(arguments: argparse.Namespace) -> int:
    try:
        require_home()
        return int(arguments.command(arguments) or 0)
    except DistillError as error:
        from configs import redact

        _say_last(visible(redact(str(error)), lines=True))
        return error.exit_code
    except KeyboardInterrupt:
        _say_last("stopped; everything finished so far is kept, run the same command to go on")
        return 130
    except BrokenPipeError:
        # Who read what was printed has seen enough. Nothing may be left that Python would flush on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _say_last(line: str) -> None:
    """The last line of a command; a terminal that is gone does not change how it ended."""
    with suppress(OSError):
        print(f"distill: {line}", file=sys.stderr, flush=True)


def command_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The commands and their options; those of `distill cache` only where `argv` begins with it."""
    parser = argparse.ArgumentParser(
        prog="distill", description="Distil a large teacher into small students: of a language model, or of a task."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (until, text) in STAGES.items():
        command = commands.add_parser(name, help=text, description=text)
        _add_config(command)
        command.add_argument("--ray-address", help="attach to this Ray cluster instead of starting a private one")
        command.set_defaults(command=_run, until=until)
    plan = commands.add_parser("plan", help="print what an experiment would ask, need and cost, and stop")
    _add_config(plan)
    plan.add_argument("--dry-run", action="store_true", help="accepted for clarity: a plan never starts anything")
    plan.add_argument("--assume-gpus", type=int, metavar="N", help="plan for a cluster with N GPUs")
    plan.set_defaults(command=_plan)
    sweep = commands.add_parser("sweep", help="try what the `sweep:` block varies, and compare the best")
    _add_config(sweep)
    sweep.add_argument("--ray-address", help="attach to this Ray cluster instead of starting a private one")
    sweep.set_defaults(command=_sweep)
    text = "write the report of finished runs as a page; without RUN, print the comparison of a finished experiment"
    report = commands.add_parser("report", help=text, description=text)
    report.add_argument("runs", nargs="*", metavar="RUN", help="a run directory, or the name of one in the run root")
    report.add_argument("--out", type=Path, metavar="DIR", help="where the report goes; of one run, its own directory")
    _add_config(report)
    report.set_defaults(command=_report)
    add_compare(commands.add_parser("compare", help="compare the students of finished runs with their baselines"))
    text = "ask of the students of a finished run what they give away that their teacher does not"
    add_audit(commands.add_parser("audit", help=text))
    cache = commands.add_parser("cache", help="look into the teacher cache, check it, tidy it up, move it")
    if argv[:1] == ["cache"]:
        # The other commands need not wait for what these import.
        from orchestration.commands.cache import add_cache_commands

        add_cache_commands(cache)
    text = "answer texts by a student of a task: its label, its tags, or the answer in a passage"
    add_predict(commands.add_parser("predict", help=text, description=text))
    text = "give a student away with the licences of its teachers, or write one of a task as an ONNX file"
    add_export(commands.add_parser("export", help=text, description=text))
    text = "say where a student comes from, from its weights back to teacher and data, and whether that still holds"
    add_lineage(commands.add_parser("lineage", help=text, description=text))
    text = "list the methods of the literature, what each takes from its teacher, and the recipe that runs it"
    add_methods(commands.add_parser("methods", help=text, description=text))
    serve = commands.add_parser(
        "serve", help="open a door to the teachers, for many who ask; and the tokens of who may"
    )
    if argv[:1] == ["serve"]:
        from orchestration.commands.serve_tokens import add_serve

        _add_config(serve)
        add_serve(serve)
    evaluate = commands.add_parser("evaluate", help="put tasks to models, without an experiment around them")
    _add_evaluate_options(evaluate)
    ui = commands.add_parser("ui", help="open the MLflow UI on loopback")
    _add_config(ui)
    ui.add_argument("--port", type=int, default=5000)
    ui.set_defaults(command=_ui)
    return parser


def _add_evaluate_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, nargs="*", help="run directories of finished experiments: all their models")
    command.add_argument(
        "--task", type=Path, action="append", default=[], metavar="FILE",
        help="a task's YAML file, may be repeated; without one, those that the runs name",
    )  # fmt: skip
    command.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="DIR_OR_ID",
        help="a model's directory or hub id; repeatable",
    )
    dtypes = ("bfloat16", "float16", "float32")
    command.add_argument("--dtype", default="bfloat16", choices=dtypes, help="what engines serve each --model in")
    command.add_argument("--dev", action="store_true", help="on the dev splits: for choosing, not for reporting")
    command.add_argument("--out", type=Path, metavar="FILE", help="write tables and answers to this JSON file")
    harness = command.add_argument_group("tasks of lm-evaluation-harness (an optional extra), in place of --task")
    harness.add_argument("--harness", metavar="TASK[,TASK]", help="its tasks or groups")
    harness.add_argument("--harness-tasks", type=Path, metavar="DIR", help="more of them: YAML files, with their data")
    harness.add_argument("--harness-chat", action="store_true", help="put them through the model's chat template")
    harness.add_argument(
        "--harness-limit", type=parse_count, metavar="N", help="the first N rows of each: for a try, not for reporting"
    )
    command.set_defaults(command=_evaluate)


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"), help="the experiment's YAML")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override one value, e.g. students.kd.stages.0.learning_rate=1e-4; may be repeated",
    )  # fmt: skip


def _load(arguments: argparse.Namespace) -> Experiment:
    # Not before it is needed: the schema takes a fifth of a second to build, and `--help` does without.
    from configs import load_experiment

    return load_experiment(arguments.config, overrides=_overrides(arguments))


def _overrides(arguments: argparse.Namespace) -> list[str]:
    overrides = list(arguments.overrides)
    if getattr(arguments, "ray_address", None):
        overrides.append(f"runtime.ray_address={arguments.ray_address}")
    return overrides


def _run(arguments: argparse.Namespace) -> int:
    config = _load(arguments)
    with last_words():
        report = run_pipeline(config, config_dir=arguments.config.parent, until=arguments.until)
    # Everything else is there and shown; the table names what could not be measured.
    return 1 if report is not None and report.missing else 0


def _plan(arguments: argparse.Namespace) -> None:
    from configs.task_experiment import TaskDistillConfig

    config = _load(arguments)
    prepare_environment(ray_address=config.runtime.ray_address)
    # A plan downloads nothing. Both are read when the libraries are imported.
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    place = arguments.config.parent
    if isinstance(config, TaskDistillConfig):
        from orchestration.commands.plan_task import print_task_plan

        print_task_plan(config, config_dir=place, assume_gpus=arguments.assume_gpus, stream=sys.stdout)
        return
    from orchestration.commands.plan import print_plan

    print_plan(config, config_dir=place, assume_gpus=arguments.assume_gpus, stream=sys.stdout)


def _sweep(arguments: argparse.Namespace) -> None:
    from configs import load_config

    config = load_config(arguments.config, overrides=_overrides(arguments))
    prepare_environment(ray_address=config.runtime.ray_address)
    from orchestration.commands.sweep import sweep

    with last_words():
        sweep(config, config_dir=arguments.config.parent)


def _report(arguments: argparse.Namespace) -> None:
    if arguments.runs:
        from orchestration.commands.report import report_runs

        run_root = _load(arguments).runtime.run_root
        report_runs(arguments.runs, run_root=run_root, out=arguments.out, stream=sys.stdout)
    else:
        _show_report(arguments)


def _show_report(arguments: argparse.Namespace) -> None:
    from orchestration.comparison.show import finished_report, run_directory, show_report
    from orchestration.outputs.console import Console
    from orchestration.outputs.kept import OutdatedError

    config = _load(arguments)
    directory = run_directory(config, config_dir=arguments.config.parent)
    try:
        report = finished_report(config, directory=directory)
    except OutdatedError as error:
        raise ConfigError(f"{error}: `distill run` with this config makes the comparison anew") from error
    if report is None:
        raise ConfigError(
            f"{directory} holds no finished experiment with this configuration, these data and these models: "
            "`distill run` with this config first"
        )
    show_report(report, config, directory=directory, console=Console(sys.stdout))


def _evaluate(arguments: argparse.Namespace) -> int:
    prepare_environment(ray_address=None)
    if arguments.harness is not None:
        from orchestration.commands.harness import evaluate_by_harness

        return evaluate_by_harness(arguments)
    from orchestration.commands.evaluate import evaluate

    return evaluate(arguments)


def _ui(arguments: argparse.Namespace) -> None:
    from orchestration.commands.ui import serve_ui

    serve_ui(_load(arguments), port=arguments.port, stream=sys.stdout)
