"""Commands that only look: a finished comparison, the teachers of a cache, its digests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO

from rich.table import Table

from cache import TeacherCache, TeacherIdentity
from configs import CacheError, ConfigError, DistillConfig
from orchestration.console import Console
from orchestration.report import Report, print_report, read_report


def show_finished(config: DistillConfig, *, stream: TextIO) -> Report | None:
    """Print the comparison if the experiment is finished."""
    report = read_report(run_directory(config))
    if report is not None:
        console = Console(stream)
        console.say(f"Experiment {config.name} is finished.")
        show_report(report, config, console=console)
    return report


def show_report(report: Report, config: DistillConfig, *, console: Console) -> None:
    """Print a comparison and where everything lies."""
    directory = run_directory(config)
    print_report(report, console, samples=config.evaluation.samples_shown)
    console.say(f"Everything is in {directory} (report.md, report.json, config.yaml, views, logs).")
    console.say("Compare runs in the browser: make ui")


def run_directory(config: DistillConfig) -> Path:
    """Where an experiment keeps its report, views and logs; named by what changes its numbers."""
    return config.runtime.run_root / f"{config.name}-{config.digest()[:10]}"


def list_caches(root: Path, *, stream: TextIO) -> int:
    """List the teachers below a cache root with what is kept of each."""
    table = Table(title=f"Teachers in {root}")
    for title in ("identity", "model", "records", "response tokens", "MiB", "bytes a token", "segments"):
        table.add_column(title, justify="left" if title in ("identity", "model") else "right", no_wrap=True)
    for identity in _identities(root):
        cache = TeacherCache.open(root, identity, create=False)
        stats = cache.stats()
        table.add_row(
            identity.digest()[:12],
            cache.provenance.get("model", "?"),
            f"{stats.records:,}",
            f"{stats.response_tokens:,}",
            f"{stats.bytes / 2**20:,.1f}",
            f"{stats.bytes_per_token:.1f}",
            f"{stats.segments:,}",
        )
    Console(stream).say(table)
    return 0


def verify_caches(root: Path, *, stream: TextIO) -> int:
    """Check every digest; the exit code is 1 if an object is damaged."""
    console = Console(stream)
    damaged = 0
    for identity in _identities(root):
        found = TeacherCache.open(root, identity, create=False).verify()
        damaged += len(found)
        for damage in found:
            console.warn(f"{identity.digest()[:12]}, segment {damage.segment}: {damage.name} {damage.reason}")
    console.say(f"damaged objects: {damaged}; a fill asks for their rows again" if damaged else "every digest agrees")
    return 1 if damaged else 0


def _identities(root: Path) -> list[TeacherIdentity]:
    if not root.is_dir():
        raise ConfigError(f"--cache-root {root} is no directory: name the cache that runtime.cache_root points to")
    return [_read_identity(path) for path in sorted(root.glob("*/identity.json"))]


def _read_identity(path: Path) -> TeacherIdentity:
    try:
        return TeacherIdentity(**json.loads(path.read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path} cannot be read: delete it, the next fill of its teacher writes it anew") from error
