"""What a comparison looks like: sentences by hand, files that are whole, hostile text that stays text."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from analysis_builders import answer, facts, final
from results_builders import model_results, run_results

from evaluation.analysis import Comparison, compare_runs
from evaluation.results import TaskExample
from evaluation.statistics import Resampling
from orchestration.comparison.analysis import COMPARISON, print_comparison, sections_of, write_comparison
from orchestration.outputs.console import Console

HOSTILE = "<script>alert(1)</script> | \x1b[31m \u202e"


def examples(right: int) -> tuple[TaskExample, ...]:
    gold = ["a", "b"] * 10
    return tuple(
        replace(
            answer(row, gold[row], gold[row] if row < right else "c", 0.8, tokens=row + 1, pair=f"p{row // 2}"),
            shown=f"{HOSTILE} {row}",
            answer=HOSTILE,
        )
        for row in range(20)
    )


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    models = (
        model_results("teacher", tasks=(final(*examples(18)),)),
        model_results("untouched", tasks=(final(*examples(2)),)),
        model_results("kd", tasks=(final(*examples(10)),)),
    )
    return compare_runs({"one": run_results(*models, tasks=(facts(counts={"a": 4, "b": 9}),))}, Resampling(draws=500))


def test_differences_in_sentences(comparison: Comparison) -> None:
    section = next(each for each in sections_of(comparison) if each.title == "letters: accuracy (higher is better)")
    assert [row[:2] for row in section.rows] == [("teacher", "90.0 %"), ("untouched", "10.0 %"), ("kd", "50.0 %")]
    against_teacher, against_start = section.lines
    assert against_teacher.startswith("kd against its teacher (teacher): worse by -40.0 pp, 95 %: ")
    assert against_start.startswith("kd against its start (untouched): better by +40.0 pp, 95 %: ")


def test_what_the_student_took_over(comparison: Comparison) -> None:
    lines = sections_of(comparison)[-1].lines
    assert lines[:2] == (
        "20 answers of both; right: the label is right",
        "both right 10, the teacher alone 8, the student alone 0, neither 2; "
        "of the teacher's 2 mistakes it makes 2 (100%), 2 of them with the same wrong answer",
    )
    assert lines[2].startswith("keeps 55.6 % of the teacher's accuracy (95 %: ")
    assert lines[3].startswith("by class: rare (4 in train) 55.6 % kept (0.50 of 0.90, n = 10); frequent")
    assert lines[4].startswith("by prompt: short (1 to 7 tokens) 100.0 % kept (1.00 of 1.00, n = 7)")
    assert lines[5] == "confidences: Pearson undefined, Spearman undefined (n = 20)"
    assert lines[6] == (
        "minimal pairs: both right in 5 of 10 (teacher 9); the answer changes in 5 (teacher 9, it should in 10)"
    )
    assert lines[7].startswith("gap in row 10, ") and lines[7].endswith(
        "(sure by 0.80, the teacher of the right one by 0.80)"
    )
    assert len(lines) == 10


def test_the_terminal_shows_hostile_text_and_does_not_obey_it(comparison: Comparison) -> None:
    stream = io.StringIO()
    print_comparison(comparison, Console(stream))
    shown = stream.getvalue()
    assert "test prompts: forward_kl (lower is better)" in shown
    assert "\x1b" not in shown and "\u202e" not in shown and "<script>" in shown


def test_files_hold_everything(comparison: Comparison, tmp_path: Path) -> None:
    page, data = write_comparison(comparison, tmp_path / "there" / "and back")
    text = page.read_text()
    assert text.startswith("# Comparison of one\n")
    assert "\n| kd | 50.0 % |" in text and "<script>" not in text and "\x1b" not in text
    fields = json.loads(data.read_text(), parse_constant=pytest.fail)
    assert (fields["schema"], fields["runs"], fields["left_out"]) == (COMPARISON, ["one"], [])
    letters = next(table for table in fields["tables"] if table["on"] == "letters")
    assert letters["against"][0]["differences"]["kd"]["verdict"] == "worse"
    assert letters["estimates"]["kd"]["value"] == 0.5
    assert fields["analyses"][0]["found"]["gaps"][0]["teacher"]["shown"] == f"{HOSTILE} 10"


def test_what_was_left_out_stands_last(comparison: Comparison) -> None:
    last = sections_of(replace(comparison, left_out=("letters: two is left out",)))[-1]
    assert (last.title, last.lines) == ("Left out", ("letters: two is left out",))
