"""Loading: every mistake is one line that names file, key, value and cure; what is dumped is read back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiment_files import EXPERIMENT, TASK_EXPERIMENT, one_line
from hypothesis import given
from hypothesis import strategies as st

from configs import (
    ConfigError,
    DistillConfig,
    dump_config,
    load_config,
    load_experiment,
    load_task_file,
    resolve_data_path,
)
from configs.task_experiment import TaskDistillConfig


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("- a\n", "a list"),
        ("just text", "'just text'"),
        ("name: a\nname: b\n", "name stands twice in one block (lines 1 and 2)"),
        ("name: {a: 1, a: 2}\n", "a stands twice"),
        ("name: [1\n", "line 2, column 1: not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "python/object"),
        ("name: *nowhere\n", "nowhere"),
        ("name: &a [*a]\n", "Circular"),
        ("name: !!binary aGk=\n", "bytes"),
        ("name: !!int ''\n", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "a key must be plain text"),
        ('name: "\\ud800"\n', "surrogates"),
        ("name: " + "[" * 5000, "recursion"),
    ],
)
def test_what_is_not_an_experiment_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    line = one_line(path)
    assert line.startswith(f"{path}: ")
    assert words in line


def test_a_missing_file_names_an_example(tmp_path: Path) -> None:
    assert "no such file" in one_line(tmp_path / "absent.yaml")


def test_a_directory_names_the_files_in_it(written: Path) -> None:
    assert "experiment.yaml" in one_line(written.parent)


def test_text_that_is_not_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: caf\u00e9".encode("latin-1"))
    assert "byte 9 is not UTF-8" in one_line(path)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("students.kd.stages.0.learning_rate=3e-4", 3e-4),
        ("students.kd.stages.0.learning_rate=1.5E-5", 1.5e-5),
        ("students.kd.stages.0.learning_rate=2", 2.0),
        ("students.kd.stages.0.learning_rate= 0.1", 0.1),
    ],
)
def test_numbers_may_be_written_scientifically(written: Path, override: str, value: float) -> None:
    assert load_config(written, overrides=[override]).students["kd"].stages[0].learning_rate == value


def test_scientific_notation_in_the_file_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(EXPERIMENT.replace("steps: 10", "steps: 10, learning_rate: 3e-4, weight_decay: +1E-2"))
    stage = load_config(path).students["kd"].stages[0]
    assert (stage.learning_rate, stage.weight_decay) == (3e-4, 1e-2)


def test_later_settings_win_and_absent_blocks_are_made(written: Path) -> None:
    config = load_config(written, overrides=["runtime.training.workers=3", "runtime.training.workers=5", "name=other"])
    assert (config.runtime.training.workers, config.name) == (5, "other")


def test_a_setting_may_hold_a_list_or_a_whole_block(written: Path) -> None:
    overrides = ["students.kd.init.keep_layers=[0, 3]", "generation={temperature: 0.5, max_new_tokens: 7}"]
    config = load_config(written, overrides=overrides)
    assert config.students["kd"].init.keep_layers == (0, 3)
    assert (config.generation.temperature, config.generation.max_new_tokens) == (0.5, 7)


def test_a_name_with_dots_is_found(written: Path) -> None:
    config = load_config(written, overrides=["students.v1.5.init.keep_layers=4"])
    assert config.students["v1.5"].init.keep_layers == 4


def test_a_setting_does_not_reach_through_an_anchor(written: Path) -> None:
    config = load_config(written, overrides=["students.kd.stages.0.steps=99"])
    assert config.students["kd"].stages[0].steps == 99
    assert config.students["v1.5"].stages[0].steps == 10


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("name", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("a..b=3", "not of the form key=value"),
        ("name.x=3", "name is 'test', which has no key x"),
        ("students.kd.stages.1.steps=3", "students.kd.stages is a list of 1; 1 must be an index from 0 to 0"),
        ("students.kd.stages.first.steps=3", "first must be an index"),
        ("teacher.top_k=[1", "not valid YAML"),
    ],
)
def test_a_bad_setting_is_quoted(written: Path, override: str, words: str) -> None:
    line = one_line(written, override)
    assert line.startswith(f"--set {override}: ")
    assert words in line


def test_the_digest_does_not_know_where_the_file_lies(written: Path, tmp_path: Path) -> None:
    moved = tmp_path / "deep" / "er" / "renamed.yaml"
    moved.parent.mkdir(parents=True)
    moved.write_text(EXPERIMENT)
    assert load_config(moved).digest() == load_config(written).digest()
    assert str(tmp_path) not in dump_config(load_config(written))


def test_a_dump_is_read_back_as_the_same_experiment(written: Path, tmp_path: Path) -> None:
    config = load_config(
        written, overrides=["students.kd.stages.0.learning_rate=1e-5", "students.kd.init.keep_layers=[0,2]"]
    )
    path = tmp_path / "dump.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_survives_a_dump(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    assert _round_trip(tmp_path_factory, text) == text


@pytest.mark.parametrize("text", ["3e-4", "12e4567", "2024-01-01", "yes", "null", "0x10", "1_000", "~", "1:30", ""])
def test_text_that_looks_like_something_else_survives_a_dump(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    assert _round_trip(tmp_path_factory, text) == text


def _round_trip(tmp_path_factory: pytest.TempPathFactory, prompt: str) -> str | None:
    blocks: dict[str, Any] = yaml.safe_load(EXPERIMENT)
    blocks["data"]["system_prompt"] = prompt
    config = DistillConfig.model_validate(blocks)
    path = tmp_path_factory.mktemp("dump") / "dump.yaml"
    path.write_text(dump_config(config), encoding="utf-8", newline="")
    return load_config(path).data.system_prompt


def test_data_is_looked_for_beside_the_file_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, working = tmp_path / "configs", tmp_path / "work"
    for folder in (beside, working):
        folder.mkdir()
        (folder / "both.jsonl").touch()
    (working / "here.jsonl").touch()
    monkeypatch.chdir(working)
    assert resolve_data_path(Path("both.jsonl"), config_dir=beside) == beside / "both.jsonl"
    assert resolve_data_path(Path("here.jsonl"), config_dir=beside) == working / "here.jsonl"
    assert resolve_data_path(beside / "both.jsonl", config_dir=working) == beside / "both.jsonl"
    assert resolve_data_path(Path("both.jsonl"), config_dir=Path("../configs")).is_absolute()


def test_data_that_is_nowhere_names_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        resolve_data_path(Path("x.jsonl"), config_dir=tmp_path / "configs")
    assert str(tmp_path / "configs" / "x.jsonl") in str(caught.value)
    assert str(tmp_path / "x.jsonl") in str(caught.value)
    with pytest.raises(ConfigError, match=r"x\.jsonl"):
        resolve_data_path(tmp_path / "x.jsonl", config_dir=tmp_path)


def test_a_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve_data_path(Path("~/model"), config_dir=Path("/")) == tmp_path / "model"


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))


@pytest.mark.parametrize("text", [BOMB, MERGES])
def test_aliases_of_aliases_are_counted_before_they_are_written_out(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    with pytest.raises(
        ConfigError, match=r"has [\d,]+ values once its aliases are expanded, more than the 50,000 allowed"
    ):
        load_config(path)
    with pytest.raises(ConfigError, match="once its aliases are expanded"):
        load_config(Path("configs/tiny.yaml"), overrides=["name=" + "{" + text.replace("\n", ", ") + "}"])


@pytest.mark.parametrize("text", ["a: &a [*a]", "[" * 5000, "a: &a {b: *a}"])
def test_what_holds_itself_or_never_ends_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["fifo", "device", "long"])
def test_what_is_not_a_file_of_settings_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"# " + b"x" * 2**20)
    with pytest.raises(ConfigError, match=r"x\.yaml: is .*; name a YAML file"):
        load_config(path)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("number", ["59" + ":59" * 100_000, "9" * 100_000, "1" * 5000 + ".5"])
def test_a_number_without_end_is_refused_at_once(number: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"name: x\nseed: {number}\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: line 2 holds a number of [0-9,]+ characters: shorten it$"):
        load_config(path)


TASK = """\
name: moods
kind: classification
data: {test: {path: moods/test.jsonl}}
fields: {label: mood}
labels: [good, bad]
template: "{{ text }}"
"""


def test_a_task_is_read_as_strictly_as_an_experiment(tmp_path: Path) -> None:
    path = tmp_path / "moods.yaml"
    path.write_text(TASK)
    task = load_task_file(path)
    assert (task.name, task.verbalisers, task.judged_by) == ("moods", {"good": "good", "bad": "bad"}, "accuracy")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("metrik: mcc", "metrik: unknown key; did you mean metric?"),
        ("few_shot: two", "few_shot: given 'two'; must be a whole number"),
        ("data: {}", "key data stands twice in one block (lines 3 and 7); remove one"),
        ("few_shot: 2", "few_shot=2 needs data.train and answer: set both, or few_shot: 0"),
        ("parser: {kind: label, regx: a}", "parser.regx: unknown key; did you mean parser.regex?"),
    ],
)
def test_what_is_wrong_with_a_task_is_one_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "moods.yaml"
    path.write_text(TASK + line + "\n")
    with pytest.raises(ConfigError) as refused:
        load_task_file(path)
    assert str(refused.value).startswith(f"{path}:")
    assert str(refused.value).endswith(said)


def test_an_empty_or_absent_task_names_one_that_is_shipped(tmp_path: Path) -> None:
    path = tmp_path / "moods.yaml"
    with pytest.raises(ConfigError, match=r"no such file; name a YAML file, e\.g\. configs/tasks/reviews\.yaml"):
        load_task_file(path)
    path.write_text("")
    with pytest.raises(ConfigError, match=r"the file is empty; start from a copy of configs/tasks/reviews\.yaml"):
        load_task_file(path)


def test_the_key_task_tells_the_two_kinds_apart(written: Path, written_task: Path) -> None:
    assert isinstance(load_experiment(written), DistillConfig)
    assert load_experiment(written) == load_config(written)
    task = load_experiment(written_task, overrides=["students.small.stages.0.epochs=3"])
    assert isinstance(task, TaskDistillConfig)
    assert task.students["small"].stages[0].epochs == 3.0


def test_a_task_experiment_is_refused_where_a_language_model_is_due(written_task: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(written_task)
    assert str(refused.value) == (
        f"{written_task}: task=task.yaml makes it an experiment that distils a task, and this command is for language "
        "models: distill run, plan, fill, train, eval, report, serve, ui, cache forget take it"
    )


@pytest.mark.parametrize("other", ["generation={max_new_tokens: 32}", "sweep={}"])
def test_a_file_of_both_kinds_is_refused_with_both_keys(written_task: Path, other: str) -> None:
    key = other.partition("=")[0]
    assert one_line(written_task, other) == (
        f"{written_task}: task and {key} stand in one experiment: task distils a task and {key} belongs to the "
        "distillation of a language model; remove one of them"
    )


def test_a_task_does_not_make_another_kind_of_an_experiment_unseen(written: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_experiment(written, overrides=["task=task.yaml"])
    assert f"{written}: data.dev: unknown key; " in str(refused.value)
    assert f"{written}: students.kd.init: unknown key; " in str(refused.value)


def test_a_dump_of_a_task_experiment_is_read_back_as_the_same(written_task: Path, tmp_path: Path) -> None:
    experiment = load_experiment(written_task)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(experiment))
    assert load_experiment(copy) == experiment
    assert load_experiment(copy).digest() == experiment.digest()
    assert TASK_EXPERIMENT.count("\n") < copy.read_text().count("\n")
