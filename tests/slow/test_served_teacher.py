"""Experiments whose teacher stands behind a real door: `distill serve`, its engine, and runs in places of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import yaml
from conformance import present
from killed_drivers import DriverPlace, newly_asked, wait_for_line, wait_until
from real_doors import RealDoor, real_door

from cache import TeacherRecord
from cache.disk.manifests import read_manifest
from cache.disk.roots import open_storage
from orchestration.fill.ledger import read_counts

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1800)]

TINY = Path(__file__).parents[2] / "configs/tiny.yaml"
# Without rows of padding no sequence of a student is lost to them.
MODEL = "teacher.model.random.vocab=261"
ROUNDED_NATS = 1 / 16
"""What `topk-u8` makes of a log-probability at most: half a step of 1/16, and as much to have the row sum to one."""

TOKEN_ENV = "STILLROOM_TEST_TOKEN"
# The teacher draws some of the tokens that the student writes, so both write in turns.
ROLLOUT = {"count": 2, "prompts": 8, "minibatches": 2, "max_new_tokens": 8, "dev_prompts": 4, "alpha": 0.2}
MINILLM = {"objective": "minillm", "learning_rate": 1e-3, "dtype": "float32", "rollout": ROLLOUT}
GKD = MINILLM | {
    "objective": "kd", "divergence": {"kind": "jsd", "beta": 0.5}, "rollout": ROLLOUT | {"share": 0.5, "alpha": 0.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDoor]:
    """An open one, for all tests that leave it as it is."""
    made = real_door(tmp_path_factory.mktemp("door"), TINY, MODEL)
    made.open()
    yield made
    made.place.clear()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[DriverPlace]:
    """A place of runs with engines of their own."""
    place = DriverPlace(tmp_path, TINY, (MODEL,))
    yield place
    place.clear()


def through(
    door: RealDoor, root: Path, monkeypatch: pytest.MonkeyPatch, *changes: str, config: Path = TINY
) -> DriverPlace:
    """A place of runs that ask this door."""
    monkeypatch.setenv(TOKEN_ENV, door.token(root.name))
    serve = f"teacher.serve={{url: '{door.url}', token_env: {TOKEN_ENV}}}"
    root.mkdir()
    return DriverPlace(root, config, (MODEL, serve, *changes))


def kept(place: DriverPlace) -> dict[bytes, TeacherRecord]:
    """All rows of the cache of a place, none of which it may hold twice."""
    cache, manifests = place.cache(), dict[str, int]()
    assert cache is not None
    digest = cache.identity.digest()
    storage = open_storage(place.root / "cache", digest, create=False)
    # A door commits on: what is counted and what is read have to be of one moment.
    while (names := {each.stem for each in (place.root / "cache" / digest / "manifests").glob("*.json")}) != {
        *manifests
    }:
        manifests = {name: read_manifest(storage, name, identity=digest).rows for name in names}
        cache = place.cache()
        assert cache is not None
    written = sum(manifests.values())
    records = cache.get_many(cache.sample(written, k=0, seed=0))
    found = {record.key: record for record in records if record is not None}
    assert len(found) == written
    return found


def assert_same_rows(found: dict[bytes, TeacherRecord], wanted: dict[bytes, TeacherRecord]) -> None:
    """The same sequences, of which a teacher believed the same."""
    assert found.keys() == wanted.keys()
    for key, record in found.items():
        other = wanted[key]
        assert record.token_ids.tolist() == other.token_ids.tolist() and record.k == other.k
        for name in ("target_logprobs", "topk_logprobs"):
            ours, theirs = present(getattr(record, name)), present(getattr(other, name))
            np.testing.assert_allclose(ours, theirs, atol=ROUNDED_NATS, err_msg=name)


def test_a_run_through_a_door_has_the_rows_of_an_engine_of_its_own(
    door: RealDoor, own: DriverPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = through(door, tmp_path / "far", monkeypatch)
    far.finish()
    assert [row["name"] for row in far.came_to()["rows"]] == ["teacher", "untouched", "seqkd", "kd"]
    own.finish(command="fill")
    assert_same_rows(kept(far), kept(own))

    # Whoever has an engine of its own finds what was asked at the door, here as there: none starts.
    for cache in (far.root, door.place.root):
        again = own.finish(f"runtime.cache_root={cache / 'cache'}", "runtime.run_root=again", command="fill")
        assert newly_asked(again) == 0 and "Nothing to ask" in again


def experiment(file: Path, stage: dict[str, Any], *, prompts: range | None = None) -> Path:
    """The tiny experiment with one student of one stage, and with questions of its own if they are numbered."""
    config: dict[str, Any] = yaml.safe_load(TINY.read_text())
    for split in ("train", "dev", "test"):
        config["data"][split]["path"] = str(TINY.parent / config["data"][split]["path"])
    if prompts is not None:
        rows = file.with_suffix(".jsonl")
        rows.write_text("".join(json.dumps({"prompt": f"What comes after {at}, and why?"}) + "\n" for at in prompts))
        config["data"]["train"] = {"path": str(rows)}
    config["students"] = {"student": {"init": {"keep_layers": 2}, "stages": [stage]}}
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


@pytest.mark.parametrize("stage", [MINILLM, GKD], ids=["minillm", "gkd"])
def test_what_a_student_writes_is_scored_at_the_door(
    door: RealDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: dict[str, Any]
) -> None:
    config = experiment(tmp_path / "on-policy.yaml", stage)
    far = through(door, tmp_path / f"on-policy-{stage['objective']}", monkeypatch, config=config)
    far.finish(command="train")
    (run,) = (far.root / "runs").glob("tiny-*")
    assert read_counts(run / "ledger").rollout > 0
    # Which student wrote them stands with the rows that the door scored.
    assert {record.policy_version for record in kept(far).values()} == {None, 0, 1}


def asked_rows(door: RealDoor, token: str) -> int:
    """Rows that the teacher was asked for since the door was opened."""
    page = httpx.get(f"{door.url}/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=60).text
    [line] = [each for each in page.splitlines() if each.startswith('stillroom_rows_total{result="asked"')]
    return int(float(line.rpartition(" ")[2]))


def complete(client: openai.OpenAI, prompt: list[int]) -> list[int]:
    """The tokens of an answer as an experiment asks for one, by OpenAI's protocol."""
    [choice] = client.completions.create(
        model="teacher", prompt=prompt, temperature=0, max_tokens=12, extra_body={"return_token_ids": True}
    ).choices
    tokens: list[int] = choice.token_ids  # type: ignore[attr-defined]
    return tokens


def test_two_pipelines_a_training_and_a_client_of_openai_share_one_door(
    door: RealDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learns = {"objective": "kd", "steps": 4, "tokens_per_step": 400, "learning_rate": 1e-3, "dtype": "float32"}
    first, second, third = (
        through(door, tmp_path / name, monkeypatch, config=experiment(tmp_path / f"{name}.yaml", learns, prompts=asked))
        for name, asked in (("first", range(24)), ("second", range(12, 36)), ("third", range(24, 48)))
    )
    token = door.token("openai")
    client = openai.OpenAI(base_url=f"{door.url}/v1", api_key=token, timeout=600)
    mine = [[72, 105, 32, 48 + at] for at in range(8)]
    before, asked = kept(door.place).keys(), asked_rows(door, token)
    trained = DriverPlace(
        tmp_path / "trained", first.config, (MODEL, f"runtime.cache_root={door.place.root / 'cache'}")
    )
    trained.root.mkdir()
    try:
        # Two pipelines with equal questions, and a client who asks each of its own twice at once.
        filling = [place.start(command="fill") for place in (first, second)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda prompt: complete(client, prompt), [*mine, *mine]))
        assert answers[:8] == answers[8:]
        for process in filling:
            printed = process.communicate(timeout=900)[0]
            assert process.returncode == 0, printed

        # A training reads what the door writes, while a pipeline fills on and the client reads what others asked.
        training, filling_on = trained.start(command="train"), third.start(command="fill")
        rows = list(kept(first).values())
        assert len(rows) >= 24
        for record in rows:
            prompt = record.token_ids[: record.prompt_len].tolist()
            assert complete(client, prompt) == record.response_ids.tolist()
        for process in (training, filling_on):
            printed = process.communicate(timeout=900)[0]
            assert process.returncode == 0, printed
        (run,) = (trained.root / "runs").glob("tiny-*")
        assert read_counts(run / "ledger").fill == 0
    finally:
        for place in (first, second, third, trained):
            place.clear()

    # Every question was asked once, whoever asked it and at the same time as whom.
    new = asked_rows(door, token) - asked
    assert new >= 48 + len(mine)
    deadline = time.monotonic() + 60
    while len((there := kept(door.place)).keys() - before) < new and time.monotonic() < deadline:
        time.sleep(0.5)
    assert len(there.keys() - before) == new
    for place in (first, second, third):
        found = kept(place)
        assert_same_rows(found, {key: there[key] for key in found})


def test_a_door_that_is_killed_in_the_middle_of_a_fill_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = real_door(tmp_path / "door", TINY, MODEL)
    prompts = tmp_path / "many.jsonl"
    rows = [{"prompt": f"Say something about the number {n} and the one after it."} for n in range(600)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    many = (f"data.train.path={prompts}", "data.train.limit=600", "generation.max_new_tokens=48")
    far = through(door, tmp_path / "far", monkeypatch, *many, "runtime.commit_every_s=0.5")
    try:
        door.open()
        process = far.start(command="fill")
        wait_for_line(process, "- fill")
        wait_until(lambda: (cache := far.cache()) is not None and cache.stats().records > 0, process)
        door.place.clear()
        door.place.wait_until_gone()
        assert process.poll() is None
        before = len(kept(far))
        door.open()
        printed = process.communicate(timeout=900)[0]
        assert process.returncode == 0, printed
    finally:
        for place in (far, door.place):
            place.clear()
    # Nothing is lost, nothing is there twice, and nothing was left for an engine of one's own.
    assert before < len(kept(far)) == newly_asked(printed)
    assert kept(door.place).keys() <= kept(far).keys()


@pytest.mark.group
@pytest.mark.parametrize("answers", ["labels", "text"])
def test_a_task_is_labelled_through_the_door_of_a_language_model(
    door: RealDoor, tmp_path: Path, answers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = yaml.safe_load(TINY.read_text())
    start = {"kind": "bag", "embeddings": "random", "embedding_size": 8}
    stage = {"objective": "hard_labels", "labels": "teacher", "data": ["train"], "steps": 2, "batch_size": 8}
    teacher = {"model": tiny["teacher"]["model"], "answers": answers, "max_tokens": 64}
    engine = tiny["runtime"]["teacher_engine"]
    values: dict[str, Any] = {
        "name": "labelled",
        "task": str(TINY.parent / "tasks/reviews.yaml"),
        "teacher": teacher,
        "students": {"bag": {"start": start, "stages": [stage]}},
        "runtime": {"accelerator": "cpu", "teacher_engine": engine, "training": {"workers": 1, "zero_stage": 0}},
    }
    config = tmp_path / "labelled.yaml"
    config.write_text(yaml.safe_dump(values))
    far = through(door, tmp_path / f"far-{answers}", monkeypatch, config=config)
    far.finish()
    (asked,) = (row for row in far.came_to()["rows"] if row["role"] == "teacher")
    # Held to a grammar, an answer of noise can be read too.
    assert all(example["predicted"] for example in asked["tasks"][0]["examples"])
    # Whoever has an engine of its own finds there what the door said.
    (tmp_path / "own").mkdir()
    own = DriverPlace(tmp_path / "own", config, (MODEL,))
    assert newly_asked(own.finish(f"runtime.cache_root={far.root / 'cache'}", command="fill")) == 0


def test_a_text_that_is_not_a_grammar_costs_its_row_alone(door: RealDoor) -> None:
    grammars = ['start: "good" | "bad"', "start: ((((", "x" * 2000]
    requests = [{"prompt": "Was it good?", "max_new_tokens": 8, "grammar": text} for text in grammars]
    headers = {"Authorization": f"Bearer {door.token('grammars')}"}
    with httpx.Client(base_url=door.url, headers=headers, timeout=300.0) as client:
        for _ in range(2):
            answer = client.post("/v1/generate", json={"k": 0, "requests": requests}).raise_for_status().json()
            said, *refused = answer["rows"]
            assert "error" not in said, said
            assert said["text"].startswith(("good", "bad"))
            assert all(row["error"]["code"] == "not_answered" for row in refused)
            assert "ngines died" not in json.dumps(refused)
