"""The door to a teacher with a task head, with all that is real: Ray Serve, an encoder, clients over HTTP, a run beside."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import yaml
from killed_drivers import DriverPlace, newly_asked, wait_until
from real_doors import RealDoor, real_door
from served_teachers import TOKEN_ENV
from task_heads import WORDS, save_classifier
from task_pipeline_builders import TASK
from transformers import BertConfig, BertForSequenceClassification

from cache import CacheView
from teacher_server.http.signals.wire import decode_signals
from teacher_server.http.wire import MEDIA_TYPE

pytestmark = [pytest.mark.slow, pytest.mark.group, pytest.mark.timeout(1800)]

LABELS = {0: "good", 1: "bad"}
TEXTS = ["sun", "rain rome oslo", *(f"{'where ' * at}sun rain" for at in range(1, 20))]
CLASSES = {"name": "class_logits"}
STATE = {"name": "state", "layer": 2, "position": "mean"}


@pytest.fixture
def door(tmp_path: Path) -> Iterator[RealDoor]:
    """A task, a small random encoder with a head for it, and an experiment with both."""
    save_classifier(tmp_path / "teacher")  # the tokenizer of words
    torch.manual_seed(3)
    shape = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, id2label=LABELS, label2id={name: at for at, name in LABELS.items()},
    )  # fmt: skip
    BertForSequenceClassification(shape).save_pretrained(tmp_path / "teacher")
    for split, texts in {"train": TEXTS[:11], "dev": TEXTS[11:16], "test": TEXTS[16:]}.items():
        rows = [{"text": text, "label": LABELS[at % 2]} for at, text in enumerate(texts)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "moods.yaml").write_text(yaml.safe_dump(TASK))
    learns = {"data": ["train"], "steps": 1, "batch_size": 4, "objective": "logit_mse"}
    experiment: dict[str, Any] = {
        "name": "moods",
        "task": "moods.yaml",
        "teacher": {"model": {"path": "teacher"}, "max_tokens": 32},
        "students": {"bag": {"start": {"kind": "bag"}, "stages": [learns]}},
        "runtime": {"accelerator": "cpu", "teacher_engine": {"count": 1, "cpus": 1}},
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    made = real_door(tmp_path, tmp_path / "experiment.yaml")
    yield made
    made.place.clear()


def model_says(teacher: Path, token_ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and the mean state of layer 2, of one text alone."""
    model = BertForSequenceClassification.from_pretrained(teacher).eval()
    with torch.inference_mode():
        said = model(input_ids=torch.tensor([token_ids]), output_hidden_states=True)
    return said.logits.numpy(), said.hidden_states[2].mean(dim=1).numpy()


def test_an_encoder_is_asked_at_a_door_and_a_run_beside_it_pays_nothing(door: RealDoor) -> None:
    process, token = door.open(), door.token("team")
    headers = {"Authorization": f"Bearer {token}"}
    body = {"signals": [CLASSES, STATE], "requests": [{"text": text} for text in TEXTS]}
    with httpx.Client(base_url=door.url, headers=headers, timeout=300.0) as client:
        [teacher] = client.get("/v1/teachers").raise_for_status().json()["signals"]
        assert (teacher["gives"], teacher["labels"], teacher["layers"]) == ("class_logits", ["good", "bad"], 2)
        answer = client.post("/v1/signals", json=body).raise_for_status().json()
        for row in answer["rows"]:
            for said, expected in zip(
                row["signals"], model_says(door.place.root / "teacher", row["token_ids"]), strict=True
            ):
                np.testing.assert_allclose(said["values"], expected, atol=1e-5)
                assert not said["cached"]
        again = client.post("/v1/signals", json=body, headers={"Accept": MEDIA_TYPE}).raise_for_status()
        found = decode_signals(again.content, identity=teacher["identity"])
        assert all(each.cached for each in found) and len(found) == 2 * len(TEXTS)
        refused = client.post("/v1/signals", json=body | {"requests": [{"text": "sun " * 80}]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "text_too_long")
        assert client.post(
            "/v1/score", json={"k": 1, "requests": [{"token_ids": [1, 2], "prompt_len": 1}]}
        ).is_client_error

        # An engine that is killed is replaced, and whoever asks meanwhile is answered by its successor.
        (engine,) = door.place.processes(named="ServeReplica:stillroom:engine-teacher")
        engine.kill()
        late = client.post("/v1/signals", json=body | {"requests": [{"text": "oslo oslo"}]}).raise_for_status().json()
        assert late["rows"][0]["signals"][0]["cached"] is False
        committed = f'stillroom_committed_rows_total{{teacher="teacher"}} {2 * len(TEXTS) + 2}.0'
        wait_until(lambda: committed in client.get("/metrics").text, process)

    # An experiment over the same cache asks for none of it, while the door is open.
    assert newly_asked(door.place.finish(command="fill")) == 0
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and "The door is closed." in printed, printed
    door.place.wait_until_gone()
    written = door.written()
    assert token not in written and "rain rome oslo" not in written


def test_an_experiment_of_a_task_asks_a_door_and_comes_to_the_same(
    door: RealDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = door.open()
    monkeypatch.setenv(TOKEN_ENV, door.token("another-team"))
    there = f"teacher.serve={{url: '{door.url}', token_env: {TOKEN_ENV}}}"
    config = door.place.config
    far, own = DriverPlace(tmp_path / "far", config, (there,)), DriverPlace(tmp_path / "own", config)
    for place in (far, own):
        place.root.mkdir()
    try:
        printed = far.finish()
        assert f"behind {door.url.removeprefix('http://')}" in printed and newly_asked(printed) > 0
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)
        assert process.returncode == 0
        # A run that has every signal asks nobody: the door is closed.
        again = far.finish("runtime.run_root=again")
        assert newly_asked(again) == 0
        own.finish()
        assert [row["name"] for row in far.came_to()["rows"]] == [row["name"] for row in own.came_to()["rows"]]
        found, wanted = said_of(far), said_of(own)
        assert found.keys() == wanted.keys() and len(found) == len(TEXTS) - 5  # nobody asks about test
        for key, values in found.items():
            np.testing.assert_allclose(values, wanted[key], atol=1e-5)
    finally:
        for place in (far, own):
            place.clear()


def said_of(place: DriverPlace) -> dict[bytes, np.ndarray]:
    """What the teacher said, as the cache of a run has it."""
    (run,) = (place.root / "runs").glob("moods-*")
    cache = place.cache()
    assert cache is not None
    keys = [key.tobytes() for path in (run / "views").glob("*.npz") for key in CacheView.load(path).keys]
    return {key: record.values for key, record in zip(keys, cache.signals.get_many(keys), strict=True) if record}
