"""What `distill cache` prints: numbers in words, and nothing of a stranger's text obeyed."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from signal_builders import CLASSES, TAGS, ask, respond, some_requests
from store_builders import TEACHER, open_cache

from cache.upkeep.garbage import Garbage, GarbageReport
from cache.upkeep.inventory import teacher_inventory
from orchestration.cache_tools.forgetting import Forgotten, Unsearched
from orchestration.cache_tools.rescoring import Rescored
from orchestration.cache_tools.searched_files import KeptFile
from orchestration.cache_tools.tables import (
    LISTED,
    show_collected,
    show_forgotten,
    show_hashed,
    show_inventory,
    show_rescored,
    show_teachers,
    size,
)
from orchestration.cache_tools.teacher_check import HashedTeacher
from orchestration.outputs.console import Console


class Shown(io.StringIO):
    """A terminal of text."""

    @property
    def console(self) -> Console:
        return Console(self)

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (1023, "1,023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"),
        (5 * 2**30, "5.0 GiB"), (3 * 2**40, "3.0 TiB"), (5000 * 2**40, "5,000.0 TiB"),
    ],
)  # fmt: skip
def test_bytes_for_people(count: int, text: str) -> None:
    assert size(count) == text


def test_an_empty_cache_says_how_a_teacher_comes_into_it(shown: Shown) -> None:
    show_teachers([], root="data/cache", console=shown.console)
    assert shown.lines == ["data/cache holds no teacher yet: a fill makes the first"]


def test_a_live_teacher_stands_beside_its_control(shown: Shown) -> None:
    found = Rescored("second", "a" * 64, 7, 1200, 16, 2.5e-4, 1e-5, 0.995, 3e-6, 1e-6, 1.0)
    show_rescored(found, console=shown.console)
    assert shown.lines == [
        f"7 sequences of second {'a' * 12} scored again, 1,200 tokens, k=16",
        "  KL(cache || live)    2.50e-04 +- 1.0e-05 nats, top-1 99.50%",
        "  KL(live || live)     3.00e-06 +- 1.0e-06 nats, top-1 100.00%  (control: the same rows in other batches)",
    ]


def test_weights_that_are_not_what_they_were_taken_for_are_said(shown: Shown) -> None:
    sound = HashedTeacher("teacher", "a model", "a" * 64, "a" * 64)
    show_hashed(sound, console=shown.console)
    show_hashed(replace(sound, name="second", read="b" * 64), console=shown.console)
    assert shown.lines == [
        f"teacher: every weight is what identity {'a' * 12} was computed from",
        f"second: its weights were taken for {'a' * 12} and are {'b' * 12}: what was filled since they changed stands "
        "under the wrong identity; forget it, and fill again",
    ]


@pytest.mark.parametrize(("dry_run", "verb"), [(True, "would remove"), (False, "removed")])
def test_a_long_list_is_counted_to_its_end(dry_run: bool, verb: str, shown: Shown) -> None:
    removed = tuple(Garbage(f"segments/{number}", 2048, "replaced") for number in range(LISTED + 3))
    found = GarbageReport(identity="b" * 64, dry_run=dry_run, removed=removed, bytes=2048 * len(removed), kept=("x",))
    show_collected(found, console=shown.console)
    assert shown.lines[0] == f"{'b' * 12}: {verb} {LISTED + 3} objects, {size((LISTED + 3) * 2048)}"
    assert shown.lines[1] == "  segments/0  2.0 KiB  replaced"
    assert shown.lines[LISTED + 1 :] == [
        "  ... and 3 more",
        "  1 replaced or damaged segments stay: views of runs still name them",
    ]


def test_what_was_not_searched_is_named_and_not_obeyed(shown: Shown) -> None:
    other = Unsearched("c" * 64, ("\x1b[31mred",), "not of this config: name a config of its own")
    kept = KeptFile("runs/mlflow.db", "a database")
    found = Forgotten(
        "a" * 64, ("a" * 64,), (other,), (), False, 0, (), ("runs/a\nb.json",), (kept,), (), (), (), 0, False, True
    )
    show_forgotten(found, console=shown.console)
    assert shown.lines[0] == "no sequence or signal in the 1 caches that were searched holds the text"
    assert f"not searched: cache {'c' * 12} of " in shown.lines[1]
    assert "\x1b" not in shown.getvalue()
    path, database, reach = shown.lines[-3:]
    assert path.startswith("  runs/a") and path.endswith("b.json")
    assert "runs/mlflow.db holds the text and stays: a database" in database
    assert reach.startswith("Out of reach: exported folders, archives")


def test_signals_are_told_with_what_keeping_them_lost(tmp_path: Path, shown: Shown) -> None:
    cache, teacher = open_cache(tmp_path), TEACHER.digest()
    show_teachers([teacher_inventory(cache._library.storage, teacher)], root="r", console=shown.console)
    assert "signals" not in shown.getvalue()
    cache.signals.put([respond(request) for request in some_requests(2, signals=(CLASSES, TAGS))], encoding="signal-u8")
    cache.signals.put([respond(ask([3, 4], CLASSES))])
    found = teacher_inventory(cache._library.storage, teacher)
    show_teachers([found], root="r", console=shown.console)
    assert f"5 of {found.signals.bytes_per_row:,.0f} B" in shown.getvalue()
    show_inventory(found, console=shown.console)
    lines = {line[2:16].strip(): line[17:] for line in shown.lines}
    assert lines["signals"].startswith("5 (class_logits 3, tag_logits 2), ")
    assert lines["signals"].endswith(f"{found.signals.bytes_per_row:,.1f} bytes a row")
    assert lines["signals kept"] == "signal-u8 4, signal-f32 1; 6 values a row"
    assert lines["signals lost"].startswith("signal-u8 0.0") and lines["signals lost"].endswith(" rms")
