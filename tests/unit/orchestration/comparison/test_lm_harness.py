"""lm-evaluation-harness over a pool: its tasks, its metrics, our answers. Skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness_tasks import KnowingPool, write_harness_tasks
from task_files import tiny_model

pytest.importorskip("lm_eval")

from configs import ConfigError, DataError
from orchestration.comparison.continuations import Continuations
from orchestration.comparison.harness_lines import HarnessLine
from orchestration.comparison.lm_harness import Harness, HarnessModel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_harness_tasks(tmp_path / "tasks", "facts", "written", "text", "broken")


def model(root: Path, pool: KnowingPool) -> HarnessModel:
    return HarnessModel(Continuations(tiny_model(root), pool, longest=256), render=_rendered)


def _rendered(messages: Sequence[Mapping[str, Any]]) -> str:
    return "".join(f"<{each['role']}>{each['content']}" for each in messages) + "<assistant>"


def test_tasks_of_a_directory_are_measured_as_the_harness_does(folder: Path, tmp_path: Path) -> None:
    harness, asked = Harness(folder, log=tmp_path / "log"), model(tmp_path, KnowingPool())
    harness.check(["facts", "written", "arc_easy"])
    (choice,) = harness.run("facts", asked, chat=False, limit=None)
    assert choice == HarnessLine("facts", "acc", "none", 1.0, 0.0, "1.0", 1, 3)
    (written,) = harness.run("written", asked, chat=False, limit=None)
    # "hot." is cut before the dot, and right for the first of three rows.
    assert (written.metric, written.value) == ("exact_match", pytest.approx(1 / 3))
    (text,) = harness.run("text", asked, chat=False, limit=1)
    assert (text.metric, text.rows) == ("word_perplexity", 1)
    # One nat for each of the ten bytes of "The sun is", of three words.
    assert text.value == pytest.approx(2.718281828 ** (10 / 3), rel=1e-6)


def test_worked_examples_are_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    pools = [KnowingPool(), KnowingPool()]
    for pool in pools:
        Harness(folder, log=tmp_path / "log").run("facts", model(tmp_path, pool), chat=False, limit=None)
    assert pools[0].asked and pools[0].asked == pools[1].asked


def test_a_chat_template_is_applied_where_it_is_wanted(folder: Path, tmp_path: Path) -> None:
    pool = KnowingPool()
    Harness(folder, log=tmp_path / "log").run("written", model(tmp_path, pool), chat=True, limit=1)
    prompt = tiny_model(tmp_path).tokenizer.decode(pool.asked[0].prompt_ids)
    assert "<user>The sun is<assistant>" in prompt


def test_an_answer_that_was_begun_is_gone_on_with(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "It is"}]
    asked = model(tmp_path, KnowingPool())
    assert asked.apply_chat_template(turns, add_generation_prompt=False) == "<user>q<assistant>It is"


def test_what_is_broken_or_unknown_is_one_line(folder: Path, tmp_path: Path) -> None:
    harness = Harness(folder, log=tmp_path / "log")
    with pytest.raises(ConfigError, match=r"--harness absent: lm-evaluation-harness knows no such task"):
        harness.check(["facts", "absent"])
    with pytest.raises(DataError) as broken:
        harness.run("broken", model(tmp_path, KnowingPool()), chat=False, limit=None)
    assert "\n" not in str(broken.value)


def test_its_chatter_stays_out_of_the_terminal(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Harness(folder, log=tmp_path / "log").run("facts", model(tmp_path, KnowingPool()), chat=False, limit=None)
    assert capsys.readouterr() == ("", "")
