"""How a command shows what it found: as tables and lines, or with `--json` as plain data; and what it left out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from configs.visible_text import visible
from orchestration.outputs.console import Console


class LeftOut:
    """Names on stderr what a command could not do and went on without; its exit code is then 1."""

    def __init__(self) -> None:
        self.code = 0

    def __call__(self, reason: str) -> None:
        """Print why something was left out."""
        self.code = 1
        Console(sys.stderr).warn(f"left out: {visible(reason)}")


def progress_console(arguments: argparse.Namespace) -> Console:
    """Where progress is shown: not among the JSON."""
    return Console(sys.stderr if arguments.json else sys.stdout)


def print_result(arguments: argparse.Namespace, found: Any, show: Callable[[Console], None]) -> None:
    """Print dataclasses, or lists and mappings of them, as JSON if that is asked for; else let `show` print them."""
    if arguments.json:
        sys.stdout.write(json.dumps(_plain(found), indent=2, default=str) + "\n")
    else:
        show(Console(sys.stdout))


def show_each(show: Any, found: Sequence[Any], console: Console) -> None:
    """`show(item, console=...)` for each item."""
    for item in found:
        show(item, console=console)


def _plain(found: Any) -> Any:
    if isinstance(found, list):
        return [_plain(item) for item in found]
    if isinstance(found, dict):
        return {name: _plain(item) for name, item in found.items()}
    return asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
