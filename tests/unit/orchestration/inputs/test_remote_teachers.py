"""A teacher behind a server of OpenAI's protocol: what is needed of it, and that it stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openai_server import KEY, LIKE_VLLM
from pipeline_builders import model_in
from remote_runs import KEY_ENV, remote, remote_experiment

from cache import TeacherCache
from cache.disk.roots import open_storage
from cache.identity import RemoteTeacherIdentity
from cache.upkeep.quota import evict_teacher
from configs import CacheError, ConfigError, DistillConfig, DoorError, EngineError
from orchestration.inputs.doors import Till
from orchestration.inputs.remote_teachers import scores_wanted
from orchestration.inputs.teachers import Teacher, open_cache, open_teachers


def opened(config: DistillConfig) -> str:
    """What is said of who answers; the connections are closed."""
    door = open_teachers(config)["teacher"].door
    assert door is not None
    source, said = door.open(Till())
    source.close()
    return said


def test_it_is_who_it_is_declared_to_be_and_asked_only_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with remote(tmp_path, monkeypatch) as (server, block):
        config = remote_experiment(tmp_path, block)
        teacher: Teacher = open_teachers(config)["teacher"]
        assert teacher.identity == RemoteTeacherIdentity("127.0.0.1", "noise", "3") and not server.asked
        host = block["openai"]["base_url"].removeprefix("http://").removesuffix("/v1")
        assert teacher.label == f"noise (revision 3, as 127.0.0.1 declares it; unverifiable) (noise behind {host})"
        said = teacher.provenance(config)
        assert (said["served_by"], said["declared"]) == (host, "noise, revision 3") and "unverifiable" in said
        assert "vllm" not in said and KEY not in repr(teacher) + str(said)
        assert opened(config) == (
            f"noise behind {host} takes token ids, gives up to 20 log-probabilities a token, scores given texts, ends "
            "at the stops it is given"
        )
        # A dozen questions and the fixed texts, none of them long.
        assert 0 < len(server.asked) < 20 and max(each["max_tokens"] for each in server.asked) <= 4


def test_a_key_that_is_not_there_is_said_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote(tmp_path, monkeypatch) as (_, block):
        config = remote_experiment(tmp_path, block)
        monkeypatch.delenv(KEY_ENV)
        with pytest.raises(ConfigError, match=rf"^teacher\.openai\.key_env={KEY_ENV} is not set in the environment"):
            opened(config)
        monkeypatch.setenv(KEY_ENV, "sk-wrong")
        with pytest.raises(EngineError, match="status 401") as raised:
            opened(config)
        assert "sk-wrong" not in str(raised.value)


def with_stage(root: Path, **stage: Any) -> dict[str, Any]:
    stages = [{"objective": "kd", "dtype": "float32", "steps": 4} | stage]
    return {"kd": {"init": {"model": {"path": str(model_in(root, layers=1, seed=1))}}, "stages": stages}}


def test_what_a_server_does_not_give_is_refused_with_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything but the short questions is asked."""
    texts = {"fields": frozenset(), "takes_ids": False, "echoes": False, "ascii": True}
    mute = {"most_logprobs": 0, "ascii": True}
    few = {"most_logprobs": 5, "ascii": True}
    gold = {"data": gold_data(tmp_path), "students": with_stage(tmp_path, source="gold")}
    wanted: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (few, {"top_k": 6}, r"teacher\.top_k=6 is more than the 5 that noise behind .* gives: lower it"),
        (mute, {}, r"teacher\.top_k=4, and noise behind .* gives no log-probabilities .*set teacher\.top_k to 0"),
        (texts, {}, r"teacher\.top_k=4, and noise behind .* gives no log-probabilities .*set teacher\.top_k to 0"),
        (
            {"fields": LIKE_VLLM - {"prompt_logprobs"}, "echoes": False},
            gold,
            r"students\.kd\.stages\.0\.source=gold has the teacher read given texts, and noise behind .* cannot",
        ),
    ]
    for habits, changes, said in wanted:
        blocks = dict(changes)
        with remote(tmp_path, monkeypatch, **habits) as (_, block):
            top_k = blocks.pop("top_k", block["top_k"])
            config = remote_experiment(tmp_path, block | {"top_k": top_k}, **blocks)
            with pytest.raises(ConfigError, match=said):
                opened(config)
            assert not list(Path(config.runtime.cache_root).rglob("fingerprint.json"))


def gold_data(root: Path) -> dict[str, Any]:
    for split in ("train", "dev", "test"):
        (root / f"gold-{split}.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    splits = {split: {"path": str(root / f"gold-{split}.jsonl")} for split in ("train", "dev", "test")}
    return {**splits, "max_prompt_tokens": 32, "response_field": "answer"}


def test_who_reads_what_others_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote(tmp_path, monkeypatch) as (_, block):
        assert scores_wanted(remote_experiment(tmp_path, block), "teacher") is None
        gold = remote_experiment(
            tmp_path, block, data=gold_data(tmp_path), students=with_stage(tmp_path, source="gold")
        )
        assert scores_wanted(gold, "teacher") == "students.kd.stages.0.source=gold"
        two = remote_experiment(tmp_path, block, teachers={"b": block})
        assert (scores_wanted(two, "teacher"), scores_wanted(two, "b")) == (None, "combine.kind=mixture")
        # Of several each knows its own key.
        door = open_teachers(two)["b"].door
        monkeypatch.delenv(KEY_ENV)
        assert door is not None
        with pytest.raises(ConfigError, match=r"^teachers\.b\.openai\.key_env"):
            door.open(Till())


def test_nobody_has_the_weights_even_where_a_model_with_weights_lends_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with remote(tmp_path, monkeypatch) as (_, block):
        cut = {"kd": {"init": {"keep_layers": 1}, "stages": [{"objective": "kd", "steps": 1}]}}
        for model in (block["model"]["path"], str(model_in(tmp_path, layers=2, seed=9))):
            config = remote_experiment(tmp_path, block | {"model": {"path": model}}, students=cut)
            with pytest.raises(ConfigError, match=r"students\.kd\.init is cut out .*nobody here has those of noise"):
                open_teachers(config)


def test_a_model_that_was_changed_under_its_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote(tmp_path, monkeypatch) as (_, block):
        first = remote_experiment(tmp_path, block)
        opened(first)
        opened(first)
    place = Path(first.runtime.cache_root) / open_teachers(first)["teacher"].identity.digest()
    noted = (place / "fingerprint.json").read_bytes()
    with remote(tmp_path, monkeypatch, seed=1) as (_, block):
        config = remote_experiment(tmp_path, block)
        with pytest.raises(DoorError, match=r"is not the model any more .*\(log-probabilities of the same texts differ by \d+\.\d\d nats\): .*teacher\.openai\.epoch") as raised:  # fmt: skip
            opened(config)
        assert "\n" not in str(raised.value)
        assert (place / "fingerprint.json").read_bytes() == noted
        # The cure: what it says from now on is kept apart.
        opened(remote_experiment(tmp_path, block | {"openai": block["openai"] | {"epoch": 2}}))
        (place / "fingerprint.json").write_bytes(noted[:-40])
        with pytest.raises(CacheError, match=r"fingerprint\.json: not readable as what the teacher said first"):
            opened(config)


def test_evicted_rows_take_what_was_said_first_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote(tmp_path, monkeypatch) as (_, block):
        config = remote_experiment(tmp_path, block)
        opened(config)
        teacher = open_teachers(config)["teacher"]
        cache: TeacherCache = open_cache(config, teacher)
        place = Path(config.runtime.cache_root) / cache.identity.digest()
        assert (place / "fingerprint.json").exists()
        digest = cache.identity.digest()
        evict_teacher(open_storage(config.runtime.cache_root, digest, create=False), digest)
        assert not (place / "fingerprint.json").exists()
