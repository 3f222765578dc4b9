"""`distill methods`: every method of the literature that there is a recipe for, and what it takes from its teacher."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MethodRow:
    """A method as it is printed as JSON."""

    name: str
    title: str
    paper: str
    knowledge: tuple[str, ...]
    scheme: str
    kept: tuple[str, ...]
    live: tuple[str, ...]
    recipe: str


def add_methods(command: argparse.ArgumentParser) -> None:
    """Its arguments, and what it runs."""
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(command=print_methods)


def print_methods(arguments: argparse.Namespace) -> None:
    """Print them; nothing is read but this."""
    from rich.table import Table

    from configs.methods import METHODS, RECIPES
    from orchestration.commands.results import print_result
    from orchestration.outputs.console import Console

    rows = [
        MethodRow(
            each.name, each.title, each.paper, each.knowledge, each.scheme, each.kept, each.live, _shown(each.recipe)
        )
        for each in METHODS
    ]

    def show(console: Console) -> None:
        table = Table(title="Methods")
        table.add_column("method", no_wrap=True)
        for title in ("paper", "knowledge", "scheme", "kept of its teacher", "live"):
            table.add_column(title)
        for row in rows:
            knowledge, kept, live = (", ".join(each) for each in (row.knowledge, row.kept, row.live))
            table.add_row(row.name, row.paper, knowledge, row.scheme, kept, live)
        console.say(table)
        console.say("kept: asked once, then read from the cache; live: the teacher is there while the student learns")
        console.say(f"distill run --config {_shown(RECIPES)}/METHOD.yaml")

    print_result(arguments, rows, show)


def _shown(path: Path) -> str:
    """A path below the folder that one stands in, or the whole."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
