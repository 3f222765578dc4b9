"""What was set differently: between the runs, and between the students of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.report.blocks import Block, Cell, Column, Folded, Paragraph, Row, Section, Table
from evaluation.report.merging import run_names
from evaluation.results import RunResults

UNSET = "not set"
STUDENTS = "students."


def settings_section(runs: Sequence[RunResults]) -> Section:
    """The settings that differ, and all of them folded away."""
    names = run_names(runs)
    by_run = {name: run.settings for name, run in zip(names, runs, strict=True)}
    blocks: list[Block] = []
    if len(runs) > 1:
        apart = differing(by_run)
        blocks.append(
            _table("Settings that differ between the runs", by_run, apart)
            if apart
            else Paragraph("The runs have the same settings.")
        )
    for name, run in zip(names, runs, strict=True):
        students = by_student(run.settings)
        apart = differing(students)
        if apart:
            title = "Settings that differ between the students" + (f" of {name}" if len(runs) > 1 else "")
            blocks.append(_table(title, students, apart))
    everything = {key: None for settings in by_run.values() for key in settings}
    blocks.append(Folded("All settings", (_table("All settings", by_run, list(everything)),)))
    return Section("settings", "Settings", tuple(blocks))


def differing(settings: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The keys that do not have one value everywhere, in the order in which they were met."""
    keys = {key: None for each in settings.values() for key in each}
    return [key for key in keys if len({each.get(key) for each in settings.values()}) > 1]


def by_student(settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The settings below `students`, by student."""
    found: dict[str, dict[str, str]] = {}
    for key, value in settings.items():
        # A name may hold dots: what a student is, begins after it with one of its blocks.
        if key.startswith(STUDENTS) and (cut := _end_of_name(key)) is not None:
            found.setdefault(key[len(STUDENTS) : cut], {})[key[cut + 1 :]] = value
    return found


def _end_of_name(key: str) -> int | None:
    ends = [place for block in (".init.", ".start.", ".stages.", ".adapter.") if (place := key.find(block)) > 0]
    if ends:
        return min(ends)
    place = key.find(".", len(STUDENTS))
    return place if place > 0 else None


def _table(caption: str, settings: Mapping[str, Mapping[str, str]], keys: Sequence[str]) -> Table:
    columns = tuple(Column(name, numeric=False) for name in settings)
    rows = tuple(Row(key, tuple(Cell(each.get(key, UNSET)) for each in settings.values())) for key in keys)
    return Table(caption, "setting", columns, rows)
