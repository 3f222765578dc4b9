"""How the results of `distill cache` look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cache.upkeep.archives import ExportReport, ImportReport
from cache.upkeep.garbage import GarbageReport
from cache.upkeep.inventory import DatasetInventory, SignalsInventory, TeacherInventory
from cache.upkeep.quota import QuotaReport
from cache.upkeep.rewriting import RewriteReport
from configs.visible_text import visible
from orchestration.cache_tools.actions import Verified
from orchestration.outputs.console import Console

if TYPE_CHECKING:
    # They import Ray, which needs its environment set first.
    from orchestration.cache_tools.forgetting import Forgotten
    from orchestration.cache_tools.rescoring import Rescored
    from orchestration.cache_tools.teacher_check import HashedTeacher

LISTED = 20
"""Names of single objects that the terminal shows; `--json` has all of them."""


def show_teachers(found: Sequence[TeacherInventory], *, root: Path | str, console: Console) -> None:
    """One line a teacher."""
    table = Table(title=f"Teachers in {root}")
    for title in ("identity", "model"):
        table.add_column(title, no_wrap=True)
    signals = ["signals"] if any(item.signals.rows for item in found) else []
    for title in ("records", "response tokens", *signals, "size", "rollouts", "bytes a token", "segments"):
        table.add_column(title, justify="right", no_wrap=True)
    for item in found:
        table.add_row(
            item.identity[:12] + ("" if item.verifiable else " (unverifiable)"),
            Text(visible(_models(item.provenances))),
            f"{item.records:,}",
            f"{item.response_tokens:,}",
            *([f"{item.signals.records:,} of {item.signals.bytes_per_row:,.0f} B"] if signals else []),
            size(item.bytes),
            size(sum(item.rollouts.values())) if item.rollouts else "-",
            f"{item.bytes_per_token:.1f}",
            f"{item.segments:,}",
        )
    console.say(table if found else f"{root} holds no teacher yet: a fill makes the first")


def show_inventory(item: TeacherInventory, *, console: Console) -> None:
    """Everything about a teacher."""
    mark = "" if item.verifiable else "  (unverifiable: it is who its provider says it is)"
    console.say(f"teacher {item.identity}{mark}")
    tail = "" if item.mean_tail_mass is None else f", mean tail mass {item.mean_tail_mass:.5f}"
    signals = _signals(item.signals) if item.signals.rows else {}
    lines = {
        "model": _models(item.provenances),
        "licence": ", ".join(licence or "not stated" for licence in item.licences) or "-",
        "rows": f"{item.records:,} sequences, {item.tokens:,} tokens, {item.response_tokens:,} of them response{tail}",
        "size": f"{size(item.bytes)} on disk, {size(item.referenced_bytes)} of it in use, "
        f"{item.bytes_per_token:.1f} bytes a response token",
        "rollouts": ", ".join(f"{size(count)} by {stage}" for stage, count in item.rollouts.items()) or "-",
        "kept": ", ".join(f"{name} {count:,}" for name, count in item.encodings.items()) or "-",
        "k, vocabulary": f"{_numbers(item.k)} of {_numbers(item.vocab)}",
        **signals,
        "segments": f"{item.segments:,} ({item.tombstoned} replaced, {item.quarantined} set aside, "
        f"{item.staging} being written)",
        **({"not answered": _failures(item)} if item.failures else {}),
    }
    for name, text in lines.items():
        console.say(f"  {name:<14} {visible(text)}")
    for provenance in item.provenances:
        said = ", ".join(f"{key}={value}" for key, value in sorted(provenance.items()))
        console.say(f"  from           {visible(said)}")
    if item.datasets:
        console.say(_datasets(item))


def show_verified(found: Sequence[Verified], *, console: Console) -> None:
    """Damage, or that there is none."""
    damaged = 0
    for result in found:
        damaged += len(result.damaged)
        for damage in result.damaged:
            console.warn(visible(f"{result.identity[:12]}, segment {damage.segment}: {damage.name} {damage.reason}"))
    console.say(f"damaged objects: {damaged}; a fill asks for their rows again" if damaged else "every digest agrees")


def show_rescored(found: Rescored, *, console: Console) -> None:
    """A live teacher against its cache, beside the control."""
    console.say(
        f"{found.rows} sequences of {found.name} {found.identity[:12]} scored again, {found.tokens:,} tokens, "
        f"k={found.k}"
    )
    console.say(
        f"  KL(cache || live)    {found.kl:.2e} +- {found.kl_stderr:.1e} nats, top-1 {found.top1_agreement:.2%}"
    )
    console.say(
        f"  KL(live || live)     {found.control_kl:.2e} +- {found.control_kl_stderr:.1e} nats, "
        f"top-1 {found.control_top1_agreement:.2%}  (control: the same rows in other batches)"
    )


def show_hashed(found: HashedTeacher, *, console: Console) -> None:
    """Whether a teacher's weights are those that its identity was computed from."""
    if found.differs:
        console.say(
            f"{found.name}: its weights were taken for {found.remembered[:12]} and are {found.read[:12]}: what was "
            "filled since they changed stands under the wrong identity; forget it, and fill again"
        )
    else:
        console.say(f"{found.name}: every weight is what identity {found.read[:12]} was computed from")


def show_compacted(found: RewriteReport, *, console: Console) -> None:
    """What was merged."""
    sources = sum(len(replaced) for _, replaced in found.merged)
    if not sources:
        console.say(f"{found.identity[:12]}: nothing to merge")
    else:
        made = sum(new is not None for new, _ in found.merged)
        console.say(
            f"{found.identity[:12]}: {sources} segments merged into {made}, {size(found.bytes_before)} into "
            f"{size(found.bytes_after)}; {found.dropped} superseded rows dropped. `gc` removes the old ones later."
        )
    for uuid in found.damaged:
        console.warn(f"segment {uuid} is damaged and was left alone: `distill cache verify` says where")


def show_collected(found: GarbageReport, *, console: Console) -> None:
    """What went, or would go."""
    verb = "would remove" if found.dry_run else "removed"
    console.say(f"{found.identity[:12]}: {verb} {len(found.removed)} objects, {size(found.bytes)}")
    for item in found.removed[:LISTED]:
        console.say(f"  {visible(item.name)}  {size(item.bytes)}  {item.why}")
    if len(found.removed) > LISTED:
        console.say(f"  ... and {len(found.removed) - LISTED} more")
    if found.kept:
        console.say(f"  {len(found.kept)} replaced or damaged segments stay: views of runs still name them")


def show_quota(found: QuotaReport, *, console: Console) -> None:
    """The size of the cache, and who had to go."""
    console.say(f"{size(found.bytes_after)} of {size(found.max_bytes)} in use")
    for teacher in found.teachers:
        if teacher.identity in found.evicted:
            console.say(f"  evicted {teacher.identity[:12]}, {size(teacher.bytes)}")


def show_exported(found: ExportReport, *, console: Console) -> None:
    """What was written."""
    console.say(f"{found.path}: {found.segments} segments of teacher {found.identity[:12]}, {size(found.bytes)}")
    for uuid in found.damaged:
        console.warn(f"segment {uuid} is damaged and was left out: `distill cache verify` says where")


def show_imported(found: ImportReport, *, console: Console) -> None:
    """What was taken in."""
    console.say(
        f"teacher {found.identity[:12]}: {len(found.imported)} segments taken in, {found.rows:,} rows; "
        f"{len(found.skipped)} were here already"
    )
    if found.forgotten:
        console.warn(f"{found.forgotten:,} rows of the archive were forgotten here and are not taken in")


def show_forgotten(found: Forgotten, *, console: Console) -> None:
    """What held the text, what is gone, and where the text still lies."""
    if found.failures:
        undone = "could not be answered; add --yes to forget them"
        verb = "are forgotten and asked again" if found.failures_removed else undone
        what = "requests of which nobody can tell what they hold" if found.by_text else "requests"
        console.say(f"{found.failures:,} {what} {verb}")
    elif not found.by_text:
        console.say(f"nothing is known that teacher {found.identity[:12]} or its relatives could not answer")
    if not found.by_text:
        return
    if not found.sequences:
        console.say(f"no sequence or signal in the {len(found.searched)} caches that were searched holds the text")
    elif not found.removed:
        console.say(f"{len(found.sequences)} sequences and signals hold the text; add --yes to remove them for good")
    else:
        console.say(
            f"{len(found.sequences)} sequences and signals are removed, and remembered by {found.names:,} new hashes: "
            "no fill, door or archive brings them back"
        )
    for key in found.sequences[:LISTED]:
        console.say(f"  {key}")
    if found.kept_for_views:
        views = ", ".join(view[:12] for view in found.kept_for_views)
        console.warn(f"their old segments stay on disk for the views {views}: delete those runs, or add --break-pins")
    writers = sum(report.writers for report in found.reports)
    if writers:
        console.warn(f"{writers} others are writing to this cache: run this again when they are done")
    for other in found.unsearched:
        names = visible(", ".join(other.models) or "unknown", at_most=80)
        console.warn(f"not searched: cache {other.identity[:12]} of {names}: {visible(other.reason)}")
    _show_places(found, console=console)


def _show_places(found: Forgotten, *, console: Console) -> None:
    """The files that hold the text or rest on it, what became of them, and what is out of reach."""
    verb = "went out of" if found.removed else "lies in"
    if found.files:
        console.say(f"The text {verb} {len(found.files)} files of runs and of MLflow:")
        _list(found.files, console=console)
    if found.lessons:
        became = "are removed, those of keys alone with --break-pins" if found.removed else "would be removed"
        console.say(f"{len(found.lessons)} views and lessons of runs rest on what holds it and {became}:")
        _list(found.lessons, console=console)
    if found.students:
        console.warn(f"{len(found.students)} students learned from it and cannot unlearn it, only be deleted:")
        _list(found.students, console=console)
    for kept in found.kept_files:
        console.warn(f"{visible(kept.path)} holds the text and stays: {kept.reason}")
    if found.sequences or found.files or found.students:
        console.say(
            "Out of reach: exported folders, archives and copies elsewhere, and the data, of which such rows are left "
            "out from now on."
        )


def _list(paths: Sequence[str], *, console: Console) -> None:
    for path in paths:
        console.say(f"  {visible(path)}")


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def _signals(item: SignalsInventory) -> dict[str, str]:
    """What there is beside sequences, and what keeping it lost."""
    names = ", ".join(f"{name} {count:,}" for name, count in item.names.items()) or f"{item.rows:,} rows"
    kept = ", ".join(f"{name} {count:,}" for name, count in item.encodings.items())
    lines = {
        "signals": f"{item.records:,} ({names}), {size(item.bytes)}, {item.bytes_per_row:,.1f} bytes a row",
        "signals kept": f"{kept}; {_numbers(item.widths)} values a row",
    }
    lost = [f"{name} {largest:.3g} at most, {rms:.3g} rms" for name, (largest, rms) in item.errors.items()]
    return lines | ({"signals lost": ", ".join(lost)} if lost else {})


def _failures(item: TeacherInventory) -> str:
    """How many requests each version of the engine could not answer."""
    return "; ".join(f"{count:,} ({engine})" for engine, count in item.failures.items())


def _datasets(item: TeacherInventory) -> Table:
    table = Table(title="Datasets (views of runs)")
    table.add_column("dataset", no_wrap=True)
    for title in ("rows", "tokens", "response tokens", "k", "mean tail mass", "last used"):
        table.add_column(title, justify="right", no_wrap=True)
    for data in item.datasets:
        table.add_row(
            Text(visible(data.dataset)),
            f"{data.rows:,}",
            f"{data.tokens:,}",
            f"{data.response_tokens:,}",
            str(data.k),
            _tail(data),
            datetime.fromtimestamp(data.used, UTC).strftime("%Y-%m-%d %H:%M"),
        )
    return table


def _tail(data: DatasetInventory) -> str:
    if not data.sound:
        return "rows lost"
    return "-" if data.mean_tail_mass is None else f"{data.mean_tail_mass:.5f}"


def _models(provenances: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(sorted({provenance.get("model", "?") for provenance in provenances})) or "?"


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(f"{value:,}" for value in values) or "-"
