"""Spans of a run are kept as they end, over all starts; a file that is torn or strange costs only what it holds."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from evaluation.results import Span
from orchestration.outputs import timeline as module
from orchestration.outputs.timeline import FILE, SCHEMA, Timeline


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / FILE).read_text().splitlines()]


def test_spans_of_all_starts_are_there_in_the_order_of_their_beginnings(tmp_path: Path) -> None:
    first = Timeline.of(tmp_path)
    first.note("fill", place="teacher", began=20.0, ended=30.0)
    first.note("prompts", place="driver", began=10.0, ended=25.0)
    second = Timeline.of(tmp_path)
    second.note("train kd", place="workers", began=100.0, ended=101.5)
    wanted = (
        Span("prompts", "driver", 0, 10.0, 25.0),
        Span("fill", "teacher", 0, 20.0, 30.0),
        Span("train kd", "workers", 1, 100.0, 101.5),
    )
    assert second.spans == Timeline.of(tmp_path).spans == wanted
    assert {line["schema"] for line in lines(tmp_path)} == {SCHEMA}
    # A start in which nothing ended is none.
    Timeline.of(tmp_path)
    assert {span.start for span in Timeline.of(tmp_path).spans} == {0, 1}


def test_what_fails_took_its_time_too(tmp_path: Path) -> None:
    timeline = Timeline.of(tmp_path)
    with pytest.raises(ValueError, match="no"), timeline.span("prompts", place="driver"):
        raise ValueError("no")
    (span,) = timeline.spans
    assert (span.title, span.place, span.start) == ("prompts", "driver", 0) and span.began <= span.ended


def test_without_a_file_spans_live_as_long_as_their_timeline() -> None:
    timeline = Timeline()
    timeline.noting("engines start", place="student")(1.0, 2.0)
    assert timeline.spans == (Span("engines start", "student", 0, 1.0, 2.0),)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"schema": "stillroom/timeline/0", "title": "t", "place": "driver", "start": 0, "began": 1, "ended": 2}',
        f'{{"schema": "{SCHEMA}", "title": "t", "place": "moon", "start": 0, "began": 1, "ended": 2}}',
        f'{{"schema": "{SCHEMA}", "title": "t", "place": "driver", "start": -1, "began": 1, "ended": 2}}',
        f'{{"schema": "{SCHEMA}", "title": "t", "place": "driver", "start": 0, "began": 3, "ended": 2}}',
        f'{{"schema": "{SCHEMA}", "title": 7, "place": "driver", "start": 0, "began": 1, "ended": 2}}',
        f'{{"schema": "{SCHEMA}"}}',
    ],
)
def test_a_line_that_is_no_span_is_left_out(tmp_path: Path, line: str) -> None:
    Timeline.of(tmp_path).note("fill", place="teacher", began=1.0, ended=2.0)
    with (tmp_path / FILE).open("a") as stream:
        stream.write(f"{line}\n")
    after = Timeline.of(tmp_path)
    after.note("more", place="driver", began=3.0, ended=4.0)
    assert [span.title for span in Timeline.of(tmp_path).spans] == ["fill", "more"]


def test_a_line_that_a_kill_tore_takes_no_other_with_it(tmp_path: Path) -> None:
    Timeline.of(tmp_path).note("fill", place="teacher", began=1.0, ended=2.0)
    with (tmp_path / FILE).open("a") as stream:
        stream.write('{"schema": "stillroom/time')
    Timeline.of(tmp_path).note("more", place="driver", began=3.0, ended=4.0)
    assert [span.title for span in Timeline.of(tmp_path).spans] == ["fill", "more"]


def test_threads_note_whole_lines(tmp_path: Path) -> None:
    timeline = Timeline.of(tmp_path)
    threads = [
        threading.Thread(
            target=lambda at=at: [timeline.note(f"{at}", place="workers", began=1.0, ended=2.0) for _ in range(20)]
        )  # type: ignore[misc]
        for at in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(tmp_path)) == 80 and len(Timeline.of(tmp_path).spans) == 80


def test_a_place_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    timeline = Timeline.of(Path("/proc/nothing"))
    timeline.note("fill", place="teacher", began=1.0, ended=2.0)
    assert len(timeline.spans) == 1


def test_of_very_many_the_first_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SPANS", 3)
    timeline = Timeline.of(tmp_path)
    for at in range(5):
        timeline.note(f"{at}", place="driver", began=float(at), ended=at + 1.0)
    assert len(timeline.spans) == len(lines(tmp_path)) == len(Timeline.of(tmp_path).spans) == 3
