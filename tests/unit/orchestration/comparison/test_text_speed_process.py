"""The process that answers texts, told by lines of JSON and without one being started."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from task_heads import save_classifier

from orchestration.comparison.text_speed import MAIN
from orchestration.comparison.text_speed_process import batches_of, peak_bytes
from orchestration.own_packages import own_command


def test_batches_are_the_texts_in_their_order() -> None:
    texts = [["a"], ["b"], ["c"], ["d"], ["e"]]
    assert batches_of(texts, size=2) == [[["a"], ["b"]], [["c"], ["d"]], [["e"]]]
    assert batches_of(texts, size=32) == [texts]


def test_the_peak_is_of_this_program() -> None:
    held = peak_bytes()
    assert held > 2**20
    code = "from orchestration.comparison.text_speed_process import peak_bytes; print(peak_bytes())"
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert child > 2**20
    assert child < resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("texts", [[["sun"], ["rain oslo"]]])
def test_it_answers_line_by_line(tmp_path: Path, texts: list[list[str]]) -> None:
    first = {"model": str(save_classifier(tmp_path / "model")), "threads": 1, "texts": texts, "parent": os.getpid()}
    asked = "".join(json.dumps(each) + "\n" for each in (first, {"batch": 1}, {"batch": 2}))
    ended = subprocess.run(
        own_command(MAIN), input=asked, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    said = [json.loads(line) for line in io.StringIO(ended.stdout)]
    assert ended.returncode == 0 and [sorted(each) for each in said] == [
        ["peak_bytes"],
        *[["peak_bytes", "text_s"]] * 2,
    ]
    assert all(each["text_s"] > 0 for each in said[1:])


def test_a_model_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    first = {"model": str(tmp_path), "threads": 1, "texts": [["sun"]], "parent": os.getpid()}
    asked = json.dumps(first) + "\n"
    ended = subprocess.run(own_command(MAIN), input=asked, capture_output=True, text=True)
    assert ended.returncode == 0 and str(tmp_path) in json.loads(ended.stdout)["error"]


def test_it_ends_with_whoever_asked(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "model")
    # Of whom nothing but the number is left: this process is not the one that asked.
    first = {"model": str(model), "threads": 1, "texts": [["sun"]], "parent": os.getppid()}
    with subprocess.Popen(own_command(MAIN), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(first) + "\n")
        process.stdin.flush()
        assert process.wait(timeout=60) == 1, "its input is still open"
