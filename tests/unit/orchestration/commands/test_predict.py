"""Students that answer what is typed and what stands in files; a row that cannot be read keeps its place."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from task_files import write_task
from task_heads import save_classifier, save_span_finder, save_tagger
from task_students import save_student

from orchestration.commands.main import main

ROOT = Path(__file__).resolve().parents[4]
Captured = pytest.CaptureFixture[str]


def answers(capsys: Captured, *arguments: Any, code: int = 0) -> list[str]:
    capsys.readouterr()
    assert main(["predict", *map(str, arguments)]) == code
    return capsys.readouterr().out.splitlines()


def refusal(capsys: Captured, *arguments: Any, command: str = "predict") -> str:
    capsys.readouterr()
    assert main([command, *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    return line.removeprefix("distill: ")


def rows_file(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_a_typed_text_is_answered_with_its_label_and_how_sure_that_is(tmp_path: Path, capsys: Captured) -> None:
    model = save_classifier(tmp_path)
    first, second = answers(capsys, "--model", model, "--text", "sun rain", "--text", "rain")
    assert first.startswith("good 0.99") and first.endswith("(then bad 0.002)")
    assert second.startswith("bad 0.99")


def test_the_three_likeliest_labels_are_named(tmp_path: Path, capsys: Captured) -> None:
    model = save_classifier(tmp_path, labels=("a", "b", "c", "d"))
    file = rows_file(tmp_path / "rows.jsonl", {"text": "sun"})
    (line,) = answers(capsys, "--model", model, "--file", file)
    found = json.loads(line)
    assert (found["row"], found["label"]) == (0, "a")
    assert next(iter(found["likeliest"])) == "a" and len(found["likeliest"]) == 3
    assert found["likeliest"]["a"] == found["probability"] > 0.9
    assert "cut" not in found


def test_rows_are_answered_in_their_order_and_broken_ones_keep_their_places(tmp_path: Path, capsys: Captured) -> None:
    model = save_classifier(tmp_path)
    file = rows_file(
        tmp_path / "rows.jsonl", {"text": "rain"}, "{broken", {"words": "sun"}, {"text": "sun"}, {"text": " "}
    )
    assert main(["predict", "--model", str(model), "--file", str(file), "--out", str(tmp_path / "out.jsonl")]) == 1
    assert "3 of 5 rows cannot be read; the first, row 1: invalid JSON" in capsys.readouterr().err
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [each["row"] for each in found] == [0, 1, 2, 3, 4]
    assert [each.get("label") for each in found] == ["bad", None, None, "good", None]
    assert found[2]["error"] == "no text in the field 'text', only words"
    assert found[4]["error"] == "an empty text"


def test_a_text_file_is_read_line_by_line_and_so_is_standard_input(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_classifier(tmp_path)
    (tmp_path / "lines.txt").write_text("sun\n\n{rain\n")
    first, second = answers(capsys, "--model", model, "--file", tmp_path / "lines.txt")
    assert (json.loads(first)["label"], json.loads(second)["row"]) == ("good", 1)
    for said in ("rain\nsun\n", '{"text": "rain"}\n\n{"text": "sun"}\n'):
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        found = [json.loads(line)["label"] for line in answers(capsys, "--model", model, "--file", "-")]
        assert found == ["bad", "good"]
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"text": "rain"}\n[1]\n'))
    lines = answers(capsys, "--model", model, "--file", "-", code=1)
    assert json.loads(lines[1]) == {"row": 1, "error": "not a JSON object"}


def test_words_are_printed_with_their_tags(tmp_path: Path, capsys: Captured) -> None:
    model = save_tagger(tmp_path)
    assert answers(capsys, "--model", model, "--text", "sun oslo") == ["sun\tO", "oslo\tB-LOC", ""]
    file = rows_file(tmp_path / "rows.jsonl", {"tokens": ["rome", "rain"]}, {"tokens": "sun oslo"}, {"tokens": []})
    first, second, third = map(json.loads, answers(capsys, "--model", model, "--file", file, code=1))
    assert (first["tokens"], first["tags"]) == (["rome", "rain"], ["B-LOC", "O"])
    assert all(0.9 < chance <= 1 for chance in first["probabilities"])
    assert second["tags"] == ["O", "B-LOC"]
    assert third == {"row": 2, "error": "an empty text"}


def test_answers_stand_in_their_passage(tmp_path: Path, capsys: Captured) -> None:
    model = save_span_finder(tmp_path)
    row = {"question": "where", "context": "rain oslo rome sun"}
    (line,) = answers(capsys, "--model", model, "--file", rows_file(tmp_path / "rows.jsonl", row))
    found = json.loads(line)
    assert found["answer"] == row["context"][found["start"] : found["end"]] == "oslo rome"
    assert refusal(capsys, "--model", model, "--text", "where").endswith("with a question and a context: use --file")


def test_a_task_says_which_fields_are_read(tmp_path: Path, capsys: Captured) -> None:
    model = save_classifier(tmp_path / "model")
    task = write_task(tmp_path / "task", template="{{ body }} is")
    file = rows_file(tmp_path / "rows.jsonl", {"body": "sun", "text": "rain"}, {"text": "sun"}, {"body": "rain"})
    lines = answers(capsys, "--model", model, "--file", file, "--task", task, code=1)
    assert [json.loads(line).get("label") for line in lines] == ["good", None, "bad"]
    assert "body" in json.loads(lines[1])["error"]


def test_a_pair_is_read_as_a_pair(tmp_path: Path, capsys: Captured) -> None:
    model = save_student(tmp_path / "model", name="bert")
    task = write_task(
        tmp_path / "task",
        template="{{ premise }} {{ claim }}",
        fields={"label": "mood", "second": "claim"},
        rows={split: [{"premise": "a", "claim": "b", "mood": "good"}] for split in ("train", "dev", "test")},
    )
    row = {"premise": "w1 w2", "claim": "w3"}
    one, other = (
        json.loads(answers(capsys, "--model", model, "--task", task, "--file", file)[0])["likeliest"]
        for file in (
            rows_file(tmp_path / "one.jsonl", row),
            rows_file(tmp_path / "two.jsonl", {"premise": "w1", "claim": "w2 w3"}),
        )
    )
    assert one != other
    assert refusal(capsys, "--model", model, "--task", task, "--text", "w1").endswith("is about pairs: use --file")


@pytest.mark.parametrize("name", ["lstm", "bag", "bert"])
def test_an_onnx_file_says_what_its_student_says(tmp_path: Path, capsys: Captured, name: str) -> None:
    model = save_student(tmp_path / "model", name=name)
    texts = ("--text", "w1 w2 w3", "--text", "w4")
    assert refusal(capsys, "--model", model, "--onnx", *texts).endswith(f"`distill export --model {model}`")
    assert main(["export", "--model", str(model)]) == 0
    assert f"{model}/model.onnx: " in capsys.readouterr().out
    assert answers(capsys, "--model", model, "--onnx", *texts) == answers(capsys, "--model", model, *texts)


def test_an_onnx_file_of_another_student_is_refused(tmp_path: Path, capsys: Captured) -> None:
    other = save_classifier(tmp_path / "other")
    model = save_student(tmp_path / "model", name="bag")
    assert main(["export", "--model", str(other), "--onnx", str(model / "model.onnx")]) == 0
    assert "was made of another student" in refusal(capsys, "--model", model, "--onnx", "--text", "w1")
    (model / "model.onnx").write_bytes(b"no graph")
    assert "does not load as ONNX" in refusal(capsys, "--model", model, "--onnx", "--text", "w1")


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: Captured) -> None:
    model = save_classifier(tmp_path / "model")
    headless = save_student(tmp_path / "headless", name="bert", kind=None)
    good = ("--model", model)
    assert refusal(capsys, *good).startswith("name what to answer: either --text")
    assert refusal(capsys, *good, "--text", "sun", "--file", "-").startswith("name what to answer: either --text")
    assert refusal(capsys, *good, "--text", " ") == "--text ' ' is empty: type something"
    assert refusal(capsys, *good, "--file", tmp_path / "gone.jsonl").startswith(f"--file {tmp_path}/gone.jsonl is not")
    assert refusal(capsys, *good, "--file", tmp_path / "gone.txt").startswith(f"--file {tmp_path}/gone.txt cannot be")
    assert refusal(capsys, "--model", tmp_path / "gone", "--text", "a").startswith(f"--model {tmp_path}/gone is not a")
    assert refusal(capsys, "--model", headless, "--text", "a").startswith(f"{headless}: has no task head")
    file = rows_file(tmp_path / "rows.jsonl", {"a": 1}, {"a": 2})
    assert refusal(capsys, *good, "--file", file).startswith("2 of 2 rows cannot be read; the first, row 0: no text in")
    assert refusal(capsys, *good, "--file", file, "--out", file).endswith("is the file that is read: name another one")
    assert refusal(capsys, *good, "--text", "sun", "--out", tmp_path / "no" / "out").startswith("--out ")
    (tmp_path / "empty.txt").write_text("\n")
    assert "holds no rows" in refusal(capsys, *good, "--file", tmp_path / "empty.txt")
    tagging = write_task(
        tmp_path / "task",
        kind="tagging",
        fields={"tokens": "tokens", "tags": "tags"},
        labels=["LOC"],
        answer=None,
        rows={split: [{"tokens": ["a"], "tags": ["O"]}] for split in ("train", "dev", "test")},
        template="{{ tokens | join(' ') }}",
    )
    assert "is tagging, and" in refusal(capsys, *good, "--task", tagging, "--text", "sun")


def test_a_sentence_is_answered_without_engines_and_clusters(tmp_path: Path) -> None:
    model = save_classifier(tmp_path)
    code = (
        "import sys; from orchestration.commands.main import main; "
        f"code = main(['predict', '--model', {str(model)!r}, '--text', 'sun']); "
        "heavy = {'ray', 'vllm', 'deepspeed', 'datasets', 'mlflow'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("good 0.99")
