"""Texts by models are kept: byte-identical, read by a second experiment, made anew when they are not what was written."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from configs import ConfigError, ModelError
from configs.places import SUMMARY
from configs.task_data import Augmentation
from orchestration.inputs.augment import Changed, ChangedRow, Texts, change_by_rules
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.tasks import augmenting
from orchestration.pipeline.tasks.augmenting import Changer
from tests.support.augment_models import save_masked, save_writer

TEXT = Texts(("text",))

ROWS: list[dict[str, Any]] = [
    {"text": "please move my booking to friday", "label": "move", "id": 1},
    {"text": "cancel the table for tonight", "label": "cancel", "id": 2},
    {"text": "what does the room cost", "label": "price", "id": 3},
]

KINDS = [
    {"kind": "masked_lm", "model": {"path": "masked"}, "copies": 4, "candidates": 6},
    {"kind": "continuation", "model": {"path": "writer"}, "copies": 4, "first_words": 2, "max_new_tokens": 6},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    save_masked(place / "masked")
    save_writer(place / "writer")
    return place


@pytest.fixture
def changer(models: Path, tmp_path: Path) -> Changer:
    said: list[str] = []
    return Changer(
        Artifacts(tmp_path / "runs", say=said.append),
        tokenizer=AutoTokenizer.from_pretrained(models / "masked"),
        models_root=tmp_path / "models",
        config_dir=models,
    )


def settings(values: dict[str, Any], **more: Any) -> Augmentation:
    made: Augmentation = TypeAdapter(Augmentation).validate_python(values | more)
    return made


def kept(changer: Changer) -> list[Path]:
    return sorted(changer.artifacts.root.glob("augmented/*/rows.jsonl"))


@pytest.fixture
def without_models(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, loading a model fails."""

    def forbid() -> None:
        for name in ("MaskedWords", "CausalWriter"):
            monkeypatch.setattr(augmenting, name, None)

    return forbid


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["kind"])
def test_a_second_experiment_reads_what_the_first_made_and_loads_no_model(
    kind: dict[str, Any], changer: Changer, without_models: Callable[[], None]
) -> None:
    first = changer(settings(kind), ROWS, TEXT)
    assert len(first.rows) + first.twice + first.empty == 12
    assert len(first.rows) > 6
    without_models()
    relabelled = [row | {"label": "other"} for row in ROWS]
    second = Changer(
        Artifacts(changer.artifacts.root),
        tokenizer=changer.tokenizer,
        models_root=changer.models_root,
        config_dir=changer.config_dir,
    )(settings(kind, of=["transfer"]), relabelled, TEXT)
    assert second == Changed(
        tuple({**row, "label": "other"} for row in first.rows), first.twice, first.empty, first.copies
    )
    assert len(kept(changer)) == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["kind"])
def test_what_is_made_again_is_the_same_bytes(kind: dict[str, Any], changer: Changer, tmp_path: Path) -> None:
    elsewhere = replace(changer, artifacts=Artifacts(tmp_path / "others"))
    assert changer(settings(kind), ROWS, TEXT) == elsewhere(settings(kind), ROWS, TEXT)
    (one,), (other,) = kept(changer), kept(elsewhere)
    assert one.parent.name == other.parent.name
    assert one.read_bytes() == other.read_bytes()
    assert (one.parent / SUMMARY).read_bytes() == (other.parent / SUMMARY).read_bytes()


def test_a_line_is_a_copy_of_a_row(changer: Changer) -> None:
    changed = changer(settings(KINDS[1]), [*ROWS, {"text": ""}], TEXT)
    (path,) = kept(changer)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["row"] for line in lines] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert [line["empty"] for line in lines[12:]] == [True] * 4
    assert {row["text"] for row in changed.rows} <= {" ".join(line["texts"][0]) for line in lines}
    assert [row["id"] for row in changed.rows] == sorted(row["id"] for row in changed.rows)


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"copies": 3}, {"replace": 0.5}, {"candidates": 5}, {"model": {"path": "others"}}],
    ids=lambda other: next(iter(other)),
)
def test_whatever_changes_the_texts_changes_the_address(other: dict[str, Any], changer: Changer, models: Path) -> None:
    save_masked(models / "others", seed=1)
    changer(settings(KINDS[0]), ROWS, TEXT)
    changer(settings(KINDS[0], **other), ROWS, TEXT)
    assert len(kept(changer)) == 2


def test_other_words_have_another_address_and_other_labels_or_places_of_a_model_have_not(
    changer: Changer, models: Path
) -> None:
    changer(settings(KINDS[0]), ROWS, TEXT)
    save_masked(models / "the_same")
    changer(settings(KINDS[0], model={"path": "the_same"}), ROWS, TEXT)
    changer(settings(KINDS[0]), [{"text": row["text"].split()} for row in ROWS], TEXT)
    assert len(kept(changer)) == 1
    changer(settings(KINDS[0]), ROWS[:2], TEXT)
    assert len(kept(changer)) == 2


def test_words_of_tagged_rows_keep_their_tags(changer: Changer) -> None:
    texts = Texts(("tokens",), tags="tags")
    rows = [{"tokens": ["it", "rains", "in", "rome"], "tags": ["O", "O", "O", "B-LOC"]}]
    for _ in range(2):
        changed = changer(settings(KINDS[0], replace=1.0), rows, texts)
        assert changed.rows
        assert all(row["tags"] == rows[0]["tags"] and len(row["tokens"]) == 4 for row in changed.rows)


@pytest.mark.parametrize("harm", ["edited", "cut", "removed"])
def test_what_was_changed_on_disk_is_named_and_made_anew(harm: str, models: Path, changer: Changer) -> None:
    said: list[str] = []
    changer = replace(changer, artifacts=Artifacts(changer.artifacts.root, say=said.append))
    first = changer(settings(KINDS[0]), ROWS, TEXT)
    (path,) = kept(changer)
    content = path.read_bytes()
    path.unlink()
    if harm == "edited":
        path.write_bytes(content.replace(b'"row": 0', b'"row": 1'))
    elif harm == "cut":
        path.write_bytes(content[:-9])
    assert changer(settings(KINDS[0]), ROWS, TEXT) == first
    assert path.read_bytes() == content
    assert said and all(str(path) in line and line.endswith("it is made anew") for line in said)


def killed_in(where: str, changer: Changer) -> int:
    """How a process ends that makes texts and is killed there; who makes them needs no model."""
    child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                made = ChangedRow(0, (), empty=True)
                patch.setattr(Changer, "_made", lambda *_: (made,))
                patch.setattr(augmenting, where, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
                changer(settings(KINDS[0]), ROWS, TEXT)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("where", "left"), [("seal_directory", ["rows.jsonl"]), ("large_file", [])])
def test_a_killed_run_leaves_nothing_that_is_read(where: str, left: list[str], changer: Changer) -> None:
    root = changer.artifacts.root
    assert killed_in(where, changer) == -signal.SIGKILL
    assert not list(root.glob(f"augmented/*/{SUMMARY}"))
    assert [path.name for path in root.glob("augmented/*/*")] == left
    changed = changer(settings(KINDS[0]), ROWS, TEXT)
    assert changed.rows
    assert len(list(root.glob(f"augmented/*/{SUMMARY}"))) == 1


def test_two_pipelines_make_the_same_texts_once(changer: Changer, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    original = augmenting.MaskedWords

    class Counted(original):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            made.append(options["label"])
            super().__init__(*args, **options)
            if len(made) == 1:
                # Another pipeline that comes now finds the claim taken.
                (lock,) = (changer.artifacts.root / "locks").iterdir()
                with lock.open() as other, pytest.raises(BlockingIOError):
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr(augmenting, "MaskedWords", Counted)
    first = changer(settings(KINDS[0]), ROWS, TEXT)
    read = Changer._read
    calls: list[None] = []

    def late(self: Changer, digest: str) -> Any:
        """Nothing is there when the second one looks; the first is done by the time that it has the claim."""
        calls.append(None)
        return None if len(calls) == 1 else read(self, digest)

    monkeypatch.setattr(Changer, "_read", late)
    assert changer(settings(KINDS[0]), ROWS, TEXT) == first
    assert (len(made), len(calls)) == (1, 2)


def test_rules_mask_with_the_token_of_the_teacher_and_need_a_tagger_only_for_parts_of_speech(
    changer: Changer, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "HanTa", None)
    rules = settings({"kind": "rules", "mask": 0.5, "same_part": 0.0, "copies": 3})
    assert changer(rules, ROWS, TEXT) == change_by_rules(ROWS, texts=TEXT, rules=rules, mask="[MASK]", parts=None)  # type: ignore[arg-type]
    llama: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(models / "writer")
    by_llama = replace(changer, tokenizer=llama)(rules, ROWS, TEXT)
    assert any("<unk>" in row["text"] for row in by_llama.rows)
    with pytest.raises(ConfigError, match="same_part"):
        changer(settings({"kind": "rules", "same_part": 0.1}), ROWS, TEXT)
    assert not kept(changer)


def test_texts_with_tags_cannot_be_written_on(changer: Changer) -> None:
    with pytest.raises(ConfigError) as refused:
        changer(settings(KINDS[1]), [{"tokens": ["a"], "tags": ["O"]}], Texts(("tokens",), tags="tags"))
    assert str(refused.value).startswith("data.augment has kind=continuation, and what writer writes has none of the")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", [KINDS[0] | {"model": {"path": "writer"}}, KINDS[1] | {"model": {"path": "masked"}}])
def test_a_model_of_the_other_kind_is_refused_in_one_line(kind: dict[str, Any], changer: Changer) -> None:
    with pytest.raises(ModelError) as refused:
        changer(settings(kind), ROWS, TEXT)
    assert "\n" not in str(refused.value)
    assert not kept(changer)


def test_progress_is_reported(changer: Changer) -> None:
    told: list[tuple[int, int]] = []
    changer = replace(changer, report=lambda done, total: told.append((done, total)))
    changer(settings(KINDS[1]), ROWS, TEXT)
    assert told[-1] == (12, 12)
