from __future__ import annotations

from pathlib import Path
from typing import Any

from task_pipeline_builders import task_place

from evaluation.cost import NOTHING_SAVED, Saved
from orchestration.pipeline.tasks.teaching import Answered, Wanted, ask_teacher


class Asked:
    """A teacher of whom three of four answers are missing; it notes what is done with it."""

    wanted = Wanted(answers=4, misses=3, stored_bytes=10)

    def __init__(self) -> None:
        self.done: list[str] = []

    def show(self, console: Any) -> None:
        self.done.append("show")

    def saved(self) -> Saved:
        self.done.append("saved")
        return NOTHING_SAVED

    def ask(self) -> None:
        self.done.append("ask")

    def notes(self) -> tuple[str, ...]:
        return ("one answer could not be read",)

    def pin(self, folder: Path) -> dict[str, str]:
        self.done.append(f"pin {folder.name}")
        return {"train": "digest"}


def test_it_is_shown_before_it_is_paid_for_and_tracked(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    asked: Any = Asked()
    assert ask_teacher(asked, run=place.run, journal=place.journal) == Answered({"train": "digest"}, NOTHING_SAVED)
    assert asked.done == ["saved", "show", "ask", "pin views"]
    assert "one answer could not be read" in place.said
    assert place.tracker.of("child", "fill")
    assert "'cache/hit_rate': 0.25" in str(vars(place.tracker))
