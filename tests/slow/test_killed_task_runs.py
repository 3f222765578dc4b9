"""Experiments that distil a task, stopped at bad moments of every stage: the next run goes on and ends in the same bits."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from killed_drivers import DriverPlace, newer_checkpoint, newly_asked, wait_for_line, wait_until
from numpy.typing import NDArray
from task_heads import WORDS, save_classifier
from task_pipeline_builders import TASK
from transformers import BertConfig, BertForSequenceClassification

from configs import TrainingError

pytestmark = [pytest.mark.slow, pytest.mark.group, pytest.mark.timeout(1800)]

SPLITS = {"train": 200, "dev": 60, "test": 60, "transfer": 12000}
WORDS_A_TEXT = 30
"""So many words that the teacher reads for some seconds, and commits several times."""

SLOW = {"batch_size": 16, "learning_rate": 1.0e-3, "warmup_steps": 5}


def write_project(root: Path) -> Path:
    """A task, a small random encoder to be tuned for it, and two students of it; the file of the experiment."""
    save_classifier(root / "teacher")  # the tokenizer of words
    torch.manual_seed(3)
    labels = {0: "good", 1: "bad"}
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=64, num_hidden_layers=4, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=64, id2label=labels, label2id={name: at for at, name in labels.items()},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(root / "teacher")
    draw = random.Random(0)
    for name, count in SPLITS.items():
        texts = [" ".join(draw.choices(("sun", "rain", "oslo", "rome", "where"), k=WORDS_A_TEXT)) for _ in range(count)]
        lines = [json.dumps({"text": text, "label": _label(text)}) + "\n" for text in texts]
        (root / f"{name}.jsonl").write_text("".join(lines))
    (root / "moods.yaml").write_text(yaml.safe_dump(TASK))
    learns = {"data": ["train", "transfer", "more"], "steps": 150} | SLOW
    experiment = {
        "name": "moods",
        "task": "moods.yaml",
        "teacher": {
            "model": {"path": "teacher"},
            "max_tokens": 32,
            "prepare": [{"objective": "hard_labels", "steps": 100} | SLOW],
        },
        "data": {
            "transfer": [{"path": "transfer.jsonl"}],
            "augment": {"more": {"kind": "rules", "same_part": 0.0, "copies": 2}},
        },
        "students": {
            "encoder": {
                "start": {"kind": "transformer", "keep_layers": 1},
                "stages": [{"objective": "logit_mse"} | learns],
            },
            "bag": {
                "start": {"kind": "bag", "embedding_size": 8},
                "stages": [{"objective": "soft_labels", "temperature": 2.0} | learns],
            },
        },
        "runtime": {
            "accelerator": "cpu",
            "commit_every_s": 0.05,
            "teacher_engine": {"count": 2, "cpus": 1},
            "training": {
                "workers": 2, "cpus_per_worker": 1, "zero_stage": 0, "micro_batch_tokens": 128, "checkpoint_every_s": 0.2,
            },
        },
    }  # fmt: skip
    (root / "experiment.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    return root / "experiment.yaml"


def _label(text: str) -> str:
    words = text.split()
    return "good" if words.count("sun") > words.count("rain") else "bad"


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DriverPlace]:
    """An undisturbed run."""
    project = tmp_path_factory.mktemp("project")
    place = DriverPlace(tmp_path_factory.mktemp("calm"), write_project(project))
    place.finish()
    yield place
    place.clear()


@pytest.fixture()
def place(calm: DriverPlace, tmp_path: Path) -> Iterator[DriverPlace]:
    made = replace(calm, root=tmp_path)
    yield made
    made.clear()


def held(place: DriverPlace) -> int:
    """Signals that are committed."""
    cache = place.cache()
    return 0 if cache is None else cache.stats().signals


def signals_of(place: DriverPlace) -> dict[bytes, NDArray[np.float32]]:
    """The values of every signal that the cache holds of what an experiment asked, by its key."""
    cache = place.cache()
    assert cache is not None and cache.verify() == []
    keys = [key.tobytes() for view in place.views() for key in view.keys]
    records = cache.signals.get_many(keys)
    return {key: record.values for key, record in zip(keys, records, strict=True) if record is not None}


def assert_ends_as(calm: DriverPlace, place: DriverPlace) -> None:
    assert place.weights() == calm.weights()
    assert place.came_to() == calm.came_to()
    assert list((place.root / "runs/work").iterdir()) == []


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_run_that_is_stopped_in_every_stage_ends_in_the_same_bits(
    calm: DriverPlace, place: DriverPlace, by: signal.Signals
) -> None:
    moments = random.Random(by.value)
    runs = place.root / "runs"
    stop = partial(place.stop_when, by=by)
    stop(newer_checkpoint(runs), line="- train teacher prepared", delay_s=moments.uniform(0.0, 1.0))
    stop(lambda: held(place) > 0, line="- fill")
    before, expected = held(place), signals_of(calm)
    assert 0 < before < len(expected)
    # What was committed is never asked for again.
    assert newly_asked(place.finish(command="fill")) == len(expected) - before
    found = signals_of(place)
    assert found.keys() == expected.keys() and held(place) == len(expected)
    # The weights are the same bits; a batch with other texts in it rounds otherwise.
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=0, atol=1e-4)
    (tuned,) = place.weights().items()
    assert tuned in calm.weights().items()
    place.take_answers(of=calm)
    stop(newer_checkpoint(runs), line="- train encoder ...", delay_s=moments.uniform(0.0, 1.0))
    stop(lambda: True, line="- comparison", delay_s=moments.uniform(0.0, 5.0))
    printed = place.finish()
    assert "nothing to ask" in printed and "steps, begun after" not in printed
    assert_ends_as(calm, place)


def test_an_engine_and_a_worker_that_are_killed_cost_the_run_no_bit(calm: DriverPlace, place: DriverPlace) -> None:
    process = place.start(command="fill")
    wait_for_line(process, "- fill")
    wait_until(lambda: held(place) > 0, process)
    random.Random(0).choice(place.processes(named="SignalActor")).kill()
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert signals_of(place).keys() == signals_of(calm).keys() and held(place) == len(signals_of(calm))
    place.take_answers(of=calm)
    process = place.start()
    wait_for_line(process, "- train encoder ...")
    wait_until(newer_checkpoint(place.root / "runs"), process)
    random.Random(1).choice(place.processes(named="TrainingWorker")).kill()
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == TrainingError.exit_code and "a training worker" in printed, printed
    place.finish()
    assert_ends_as(calm, place)


def test_two_runs_at_once_over_the_same_texts_pay_once(calm: DriverPlace, place: DriverPlace) -> None:
    cache = f"runtime.cache_root={place.root / 'cache'}"
    both = [replace(place, root=place.root / name, changes=(cache,)) for name in ("one", "other")]
    for each in both:
        each.root.mkdir()
    started = [each.start(command="fill") for each in both]
    printed = [process.communicate(timeout=900)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], printed
    expected = len(signals_of(calm))
    assert held(place) == expected and sum(map(newly_asked, printed)) == expected
    # Each has a view of all that it learns from, whoever asked for it.
    for each in both:
        assert sum(map(len, each.views())) == expected
