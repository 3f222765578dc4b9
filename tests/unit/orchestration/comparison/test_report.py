"""The comparison as files and on the screen."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from results_builders import model_results, run_results, serving

from configs import ConfigError
from evaluation.results import Closeness, ModelResults
from orchestration.comparison.report import (
    ANSWER_SHOWN,
    COLUMNS,
    NOTHING,
    Report,
    print_report,
    read_report,
    read_results,
    write_report,
)
from orchestration.comparison.report import REPORT as REPORT_SCHEMA
from orchestration.outputs.console import Console
from orchestration.outputs.fields import to_fields
from orchestration.outputs.foundations import RestsOn
from orchestration.outputs.kept import OutdatedError, sealed

SUMS = (
    # Tokens and sums whose ratios stand in the table.
    ("tokens", "forward_kl", "reverse_kl", "top1", "nll", "answered", "rouge_l"),
    {
        "teacher": (
            (500, 0.617, 0.755, 493.8, 500 * math.log(1.59), 1, 0.99),
            (500, 0.617, 0.755, 493.8, 500 * math.log(1.59), 1, 1.0),
        ),
        "kd": ((10, 15.0, 1.0, 5, 10 * math.log(3e7), 1, 0.5), (10, 15.0, 1.0, 5, 10 * math.log(3e7), 1, 0.5)),
    },
)


def closeness(name: str) -> Closeness:
    return Closeness(SUMS[0], tuple(tuple(map(float, row)) for row in SUMS[1][name]))


TEACHER = model_results("teacher", parameters=134_515_008, closeness=closeness("teacher"))
STUDENT = model_results("kd", answers=("Lyon.", "5"), closeness=closeness("kd"))
RESTS_ON = RestsOn(
    models={"teacher.model": "m" * 64},
    directories={"teacher.model": "models/random"},
    views={"teacher-test.npz": "v" * 64},
    starts=("s" * 64,),
    students=("k" * 64,),
)
NOTE = "students.kd.stages.0 (kd) made the student worse"
REPORT = Report(run_results(TEACHER, STUDENT, notes=(NOTE,)), RESTS_ON, {"e" * 64: "what answers found of kd"})


def changed(**fields: Any) -> Report:
    return replace(REPORT, results=replace(REPORT.results, **fields))


def printed(report: Report, *, samples: int = 0) -> str:
    stream = io.StringIO()
    print_report(report, Console(stream), samples=samples)
    return stream.getvalue()


def said_by(answer: str) -> Report:
    return changed(models=(replace(STUDENT, answers=(answer, answer)),))


def asking(report: Report, **fields: Any) -> Report:
    return replace(report, results=replace(report.results, **fields))


@pytest.mark.parametrize(
    "report",
    [
        REPORT,
        changed(models=(), prompts=(), references=(), reference_tokens=(), notes=(), settings={}),
        changed(models=(model_results("kd", closeness=None, answers=(), serving=None, failures=("answers: no",)),)),
        said_by('"quotes"\n\\ and ☃ \x1b[31m \u2028 [bold]'),
        said_by("half a character \ud83d"),
    ],
)
def test_a_written_report_reads_back_the_same(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    # NaN, which equals nothing, is written the same.
    assert repr(read_report(tmp_path)) == repr(report)
    assert repr(read_results(tmp_path)) == repr(report.results)


def test_any_reader_of_json_can_read_it(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path)

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is not JSON")

    json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)


def test_without_a_report_there_is_none(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None
    with pytest.raises(ConfigError, match="holds no finished comparison"):
        read_results(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"models": [{"name": "teacher"}]}', "[" * 100_000])
def test_a_broken_report_names_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(OutdatedError, match=r"report\.json: "):
        read_report(tmp_path)


def test_an_edited_number_is_never_shown(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path)
    path = tmp_path / "report.json"
    path.write_text(path.read_text().replace("198000000", "98000000"))
    with pytest.raises(OutdatedError, match=r"report\.json: was edited or damaged"):
        read_report(tmp_path)


def test_a_report_of_an_older_version_is_said_to_be_one(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path)
    path = tmp_path / "report.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({name: fields[name] for name in fields if name not in ("schema", "digest", "sha256")}))
    with pytest.raises(OutdatedError, match="was written by another version"):
        read_report(tmp_path)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"results": {"experiment": 3}}, "results.experiment is not of its type"),
        ({"results": {"prompts": "ab"}}, "results.prompts is not of its type"),
        ({"results": {"models": [{"name": "kd"}]}}, "results.models.0: 'answer_tokens' is missing or unknown"),
        ({"rests_on": {"models": 3}}, "rests_on.models is not of its type"),
        ({"novel": 1}, "Report: 'novel' is missing or unknown"),
        ({"results": {"references": ["Paris."]}}, "it does not have an answer to every prompt"),
        ({"results": {"prompts": ["Capital of France?"]}}, "it does not have an answer to every prompt"),
    ],
)
def test_a_sealed_report_with_other_fields_is_refused(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """A seal is no signature: whoever can write here can seal anything, and none of it is shown half."""
    fields = to_fields(REPORT)
    for name, value in changed.items():
        fields[name] = fields[name] | value if isinstance(value, dict) else value
    (tmp_path / "report.json").write_text(json.dumps(sealed(REPORT_SCHEMA, "c" * 64, fields)))
    with pytest.raises(OutdatedError) as refused:
        read_report(tmp_path)
    assert str(refused.value) == f"{tmp_path}/report.json: is not a comparison ({reason})"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (replace(STUDENT, answers=("one",)), "it does not have an answer to every prompt"),
        (replace(STUDENT, answer_tokens=(1, 2, 3)), "it does not have an answer to every prompt"),
        (
            replace(STUDENT, closeness=Closeness(("tokens",), ((1.0, 2.0),))),
            "a row of sums has not one for every column",
        ),
    ],
)
def test_a_row_that_is_not_whole_is_refused(model: ModelResults, reason: str, tmp_path: Path) -> None:
    write_report(REPORT, tmp_path)
    broken = sealed(REPORT_SCHEMA, "c" * 64, to_fields(changed(models=(model,))))
    (tmp_path / "report.json").write_text(json.dumps(broken))
    with pytest.raises(OutdatedError) as refused:
        read_report(tmp_path)
    assert str(refused.value).endswith(f"({reason})")


def test_the_table_shows_every_model_and_number() -> None:
    text = printed(REPORT)
    assert all(title in text for title in COLUMNS)
    cells = ["134.5 M", "0.001 ± 0.000", "0.002", "98.8 %", "99.5", "1.59", "215", "99.0 M", "1.500 ± 0.000", "3.0e+07"]
    assert [cell for cell in cells if cell not in text] == []
    assert "Times: teacher 1m 01s, fill 1m 02s; together 2m 03s" in text


def test_what_is_held_against_several_teachers_says_so() -> None:
    said = "Models are held against what students learned from: a mixture."
    text = printed(changed(held_against=said, notes=()))
    assert text.count(said) == 1 and f"! {said}" not in text
    assert "KL(teachers‖·)" in text and "KL(·‖teachers)" in text and "KL(teacher‖·)" not in text
    assert "KL(teachers‖·)" not in printed(REPORT) and said not in printed(REPORT)


def test_speeds_of_one_machine_and_setting_bear_no_mark() -> None:
    assert "tok/s a" not in printed(REPORT)
    assert "different machines" not in printed(REPORT)


def test_speeds_that_cannot_be_compared_are_told_apart() -> None:
    elsewhere = replace(STUDENT, name="old", serving=serving(4321.0, measured_on="8 x a GPU; bfloat16"))
    report = changed(models=(TEACHER, STUDENT, elsewhere))
    text = printed(report)
    assert text.count("215 a") == 2
    assert text.count("4,321 b") == 1
    assert "tok/s a: 2 of 2 CPUs, a processor; bfloat16" in text
    assert "tok/s b: 8 x a GPU; bfloat16" in text


def test_what_has_to_be_said_stands_below_the_table() -> None:
    assert "! students.kd.stages.0 (kd) made the student worse" in printed(REPORT)


@pytest.mark.parametrize(
    ("notes", "below"),
    [
        ((NOTE,), "a warning of training stands above, at its stage, and in report.md"),
        ((NOTE, "another"), "2 warnings of training stand above, each at its stage, and in report.md"),
    ],
)
def test_what_a_stage_has_warned_of_is_said_once(notes: tuple[str, ...], below: str) -> None:
    stream = io.StringIO()
    console = Console(stream)
    for note in notes:
        console.warn(note)
    report = changed(notes=(*notes, "a note of a stage that was reused"))
    print_report(report, console, samples=0)
    text = stream.getvalue()
    assert text.count(NOTE) == 1 and text.count(f"! {below}") == 1
    assert text.index(NOTE) < text.index("held-out comparison") < text.index("! a note of a stage") < text.index(below)


def test_what_to_think_of_a_student_stands_before_the_samples() -> None:
    sentence = "kd: not a stand-in for its teacher (1.50 nats, 50% of its next tokens), good for a draft that somebody"
    text = printed(REPORT, samples=1)
    assert text.index("99.0 M") < text.index(sentence) < text.index("Capital of France?")


def test_one_sequence_shows_no_interval() -> None:
    alone = replace(TEACHER, closeness=replace(closeness("teacher"), sums=closeness("teacher").sums[:1]))
    text = printed(changed(models=(alone,)))
    assert "±" not in text and "0.001" in text
    assert "nan" not in text


def test_samples_stand_side_by_side_and_no_more_than_asked() -> None:
    text = printed(REPORT, samples=1)
    assert "Capital of France?" in text
    assert "Paris." in text
    assert "Lyon." in text
    assert "2 + 2?" not in text
    assert "2 + 2?" in printed(REPORT, samples=5)


def test_markup_in_prompts_and_answers_is_text() -> None:
    text = printed(asking(said_by("[bold red]no[/] [link=x]y[/link]"), prompts=("[i]q[/i] [/]", "?")), samples=1)
    assert "[bold red]no[/] [link=x]y[/link]" in text
    assert "[i]q[/i] [/]" in text


def test_an_answer_cannot_drive_the_terminal() -> None:
    text = printed(asking(said_by("\x1b[2J\x07\x9b1mclear"), prompts=("\x1b]0;title\x07", "?")), samples=1)
    assert "clear" in text
    assert "title" in text
    assert not set(text) & {"\x1b", "\x07", "\x9b"}


def test_a_long_answer_is_cut_on_the_screen() -> None:
    answer = "word " * 200 + "end"
    shown = printed(said_by(answer), samples=1)
    assert "…" in shown
    assert "end" not in shown
    assert len("".join(line for line in shown.splitlines() if "word" in line)) < 2 * ANSWER_SHOWN


def test_what_could_not_be_measured_is_said_and_the_rest_is_shown() -> None:
    broken = model_results("broken", closeness=None, answers=(), serving=None, failures=("cannot be served: no",))
    report = asking(changed(models=(TEACHER, broken)), failures=("lost cannot be read: gone",))
    assert report.missing == ("lost cannot be read: gone", "broken: cannot be served: no")
    text = printed(report, samples=2)
    assert "! not measured: broken: cannot be served: no" in text and "134.5 M" in text
    row = next(line for line in text.splitlines() if " broken " in line)
    assert row.count(NOTHING) == 6 and "nan" not in text
    assert "! not measured: lost cannot be read: gone" in text
    assert REPORT.missing == ()
