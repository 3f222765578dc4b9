"""Models as plain directories: made once, read the same by transformers, refused in one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub.utils import filter_repo_objects
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import CONFIG_MAPPING, AutoTokenizer

from cache import fingerprint_model
from configs import ModelError
from configs.models import ModelSource
from configs.places import ARCHITECTURES
from configs.schema import ModelShape
from orchestration.inputs import models
from orchestration.inputs.models import (
    OWN_TOKENIZERS,
    TOKENIZER_CONFIG,
    is_at_hand,
    load_tokenizer,
    materialise,
    open_model,
)
from teacher_server.weights import require_weights

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48, vocab=300, tied_embeddings=True, max_positions=128)


def random_source(*, seed: int = 0, **changes: object) -> ModelSource:
    return ModelSource(random=SHAPE.model_copy(update=changes), seed=seed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, never changed by a test."""
    return materialise(random_source(), models_root=tmp_path_factory.mktemp("models")).directory


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break."""
    return Path(shutil.copytree(made, tmp_path / "model"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub cannot be reached and nothing was downloaded before; returns the hub's cache directory."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_model_whose_saving_was_killed_is_not_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(directory: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", lambda _, directory: killed(directory))
        with pytest.raises(KeyboardInterrupt):
            materialise(random_source(), models_root=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert materialise(random_source(), models_root=tmp_path).vocab == 261


def test_a_local_directory_is_used_where_it_lies(made: Path, tmp_path: Path) -> None:
    files = materialise(ModelSource(path=made), models_root=tmp_path / "unused")
    assert files.directory == made
    assert [path.name for path in (tmp_path / "unused").iterdir()] == [ARCHITECTURES]


def test_every_declared_end_token_stops_an_answer(copy: Path) -> None:
    (copy / "generation_config.json").write_text('{"eos_token_id": [260, 3, 257]}')
    assert open_model(copy, label="m").stop_ids == (3, 257, 260)
    (copy / "generation_config.json").write_text('{"eos_token_id": 4}')
    assert open_model(copy, label="m").stop_ids == (4, 257)
    (copy / "generation_config.json").unlink()
    assert open_model(copy, label="m").stop_ids == (257,)


def test_a_model_without_an_end_token_is_refused(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        _ = open_model(copy, label="m").stop_ids


def remove(*names: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        for name in names:
            (directory / name).unlink()

    return damage


def write(name: str, content: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).write_text(content)

    return damage


def pickled(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def half_copied(directory: Path) -> None:
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (directory / "model.safetensors").rename(directory / shards["a"])
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, "no config.json here: name a directory"),
        (remove("config.json"), "no config.json here: name a directory"),
        (remove("model.safetensors"), r"no \*\.safetensors here .* save the model with save_pretrained"),
        (pickled, r"no \*\.safetensors here .* save the model with save_pretrained"),
        (half_copied, "lacks model-00002-of-00002.safetensors, one of its 2 weight files"),
        (write("model.safetensors.index.json", "{"), "index.json: not valid JSON"),
        (remove("tokenizer.json", "tokenizer_config.json"), "its tokenizer does not load"),
        (write("tokenizer.json", "{"), "its tokenizer does not load"),
        (write("tokenizer.json", "{}"), "its tokenizer does not load"),
        (write("config.json", "{"), "config.json: not valid JSON"),
        (write("config.json", "[]"), "config.json: holds list, not a JSON object"),
        (write("config.json", '{"model_type": "bert"}'), "does not describe a decoder: model_type=bert is an encoder"),
    ],
)
def test_a_broken_directory_is_refused_in_one_line(damage: Callable[[Path], None], reason: str, copy: Path) -> None:
    damage(copy)
    with pytest.raises(ModelError, match=reason) as refused:
        materialise(ModelSource(path=copy), models_root=copy)
    assert str(copy) in one_line(refused) or "tokenizer" in one_line(refused)


def test_code_that_comes_with_a_model_is_never_run(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    settings = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="its tokenizer does not load") as refused:
        open_model(copy, label="m")
    one_line(refused)


def test_generation_settings_that_are_broken_name_the_file(copy: Path) -> None:
    (copy / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"generation_config\.json: not valid JSON"):
        _ = open_model(copy, label="m").stop_ids


@pytest.mark.timeout(30)
def test_a_tokenizer_file_that_never_ends_is_refused_at_once(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    os.mkfifo(copy / "tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json: is a named pipe"):
        open_model(copy, label="m")


def test_a_tokenizer_of_a_newer_library_is_one_line_with_the_cure(copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["model"]["type"] = "SomethingOfNextYear"
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"its tokenizer does not load .* no newer than tokenizers \d") as refused:
        open_model(copy, label="m")
    one_line(refused)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"]),
    content=st.binary(max_size=30)
    | st.sampled_from([b"{}", b"[]", b"[" * 100_000, b'{"model_type": 3}', b'{"a": 1' + b"0" * 5000]),
)
def test_whatever_a_file_holds_opening_gives_a_model_or_one_line(copy: Path, name: str, content: bytes) -> None:
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(content)
    try:
        _ = open_model(copy, label="m").stop_ids
    except ModelError as error:
        assert "\n" not in str(error)
    finally:
        (copy / name).write_bytes(whole)


def test_an_engine_gets_no_weights_that_lie_beside_the_model(copy: Path, made: Path, tmp_path: Path) -> None:
    shutil.copy(copy / "model.safetensors", copy / "consolidated.safetensors")
    (copy / "additional_chat_templates").mkdir()
    (copy / "additional_chat_templates" / "tools.jinja").write_text("x")
    files = materialise(ModelSource(path=copy), models_root=tmp_path / "models")
    assert [path.name for path in files.directory.glob("*.safetensors")] == ["model.safetensors"]
    assert (files.directory / "additional_chat_templates" / "tools.jinja").read_text() == "x"
    assert fingerprint_model(files.directory) == fingerprint_model(made)
    assert materialise(ModelSource(path=copy), models_root=tmp_path / "models").directory == files.directory
    require_weights(files.directory)
    with pytest.raises(ModelError, match=r"consolidated\.safetensors lies beside"):
        require_weights(copy)
    # With an index the engine itself knows what is not the model.
    tensors = load_file(made / "model.safetensors")
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(tensors, "model.safetensors")})
    )
    assert materialise(ModelSource(path=copy), models_root=tmp_path / "models").directory == copy


def test_a_download_takes_the_weights_that_load_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    """The hub is a folder here; patterns are matched as the hub's library matches them."""
    repository, commit = tmp_path / "repository", "a" * 40
    shutil.copytree(made, repository)
    (repository / "model.safetensors").rename(repository / "model-00001-of-00001.safetensors")
    shards = dict.fromkeys(load_file(made / "model.safetensors"), "model-00001-of-00001.safetensors")
    (repository / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    for stray in ("consolidated.safetensors", "pytorch_model.bin", "original.pth", "model.h5", "code.py"):
        (repository / stray).write_text("large")
    asked: list[str | None] = []

    def snapshot(hub: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append(revision)
        names = [path.name for path in repository.iterdir() if path.is_file()]
        folder = tmp_path / "snapshots" / commit
        folder.mkdir(parents=True, exist_ok=True)
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            shutil.copy(repository / name, folder / name)
        return str(folder)

    monkeypatch.setattr(models, "snapshot_download", snapshot)
    # Of a teacher that is served elsewhere the weights stay where they are.
    source = ModelSource(hub="a/b", revision="main")
    bare = materialise(source, models_root=tmp_path, weights=False)
    assert not bare.has_weights and not list(bare.directory.glob("*.safetensors")) and bare.vocab > 200
    assert is_at_hand(source, weights=False) and asked == ["main", "main"]
    assert "model.safetensors.index.json" in {path.name for path in bare.directory.iterdir()}
    asked.clear()
    files = materialise(source, models_root=tmp_path)
    there = {path.name for path in files.directory.iterdir()}
    assert files.has_weights and files.vocab_sha256 == bare.vocab_sha256
    assert there == {path.name for path in made.iterdir()} - {"model.safetensors"} | {
        "model-00001-of-00001.safetensors", "model.safetensors.index.json",
    }  # fmt: skip
    assert asked == ["main", commit], "a branch that moves between the two calls must not mix two models"
    assert is_at_hand(ModelSource(hub="a/b", revision="main"))


def test_a_hub_model_without_network_is_one_line(no_network: Path, tmp_path: Path) -> None:
    source = ModelSource(hub="someone/some-model", revision="v1")
    assert not is_at_hand(source)
    with pytest.raises(ModelError, match=r"^hub model someone/some-model cannot be fetched .* with path$") as refused:
        materialise(source, models_root=tmp_path)
    one_line(refused)


def test_a_server_that_refuses_the_connection_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    # Port 9 of loopback: nothing listens there.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="hub model someone/some-model cannot be fetched") as refused:
        materialise(ModelSource(hub="someone/some-model"), models_root=tmp_path)
    one_line(refused)


@pytest.mark.parametrize("hub", ["a/b/c", "two words", ""])
def test_what_is_no_hub_id_is_said_to_be_none(hub: str, no_network: Path, tmp_path: Path) -> None:
    source = ModelSource(hub=hub)
    for ask in (is_at_hand, lambda wanted: materialise(wanted, models_root=tmp_path)):
        with pytest.raises(ModelError, match="is not a hub id: write it as owner/name") as refused:
            ask(source)
        one_line(refused)


def downloaded(hub_cache: Path, model: Path) -> Path:
    """The files of a model as the hub's client keeps them."""
    snapshot = hub_cache / "models--someone--some-model" / "snapshots" / ("c" * 40)
    shutil.copytree(model, snapshot)
    (hub_cache / "models--someone--some-model" / "refs").mkdir()
    (hub_cache / "models--someone--some-model" / "refs" / "main").write_text("c" * 40)
    return snapshot


def test_a_downloaded_model_is_at_hand_without_network(no_network: Path, made: Path, tmp_path: Path) -> None:
    snapshot = downloaded(no_network, made)
    source = ModelSource(hub="someone/some-model")
    assert is_at_hand(source)
    assert materialise(source, models_root=tmp_path).directory == snapshot


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_download_that_was_broken_off_is_not_at_hand(missing: str, no_network: Path, made: Path) -> None:
    (downloaded(no_network, made) / missing).unlink()
    assert not is_at_hand(ModelSource(hub="someone/some-model"))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, own in OWN_TOKENIZERS.items() for name in own])
def test_a_tokenizer_is_read_by_what_transformers_would_choose(copy: Path, kind: str, name: str) -> None:
    CONFIG_MAPPING[kind]().save_pretrained(copy)
    settings = json.loads((copy / TOKENIZER_CONFIG).read_text())
    (copy / TOKENIZER_CONFIG).write_text(json.dumps(settings | {"tokenizer_class": name}))
    ours, theirs = load_tokenizer(copy, label="m"), AutoTokenizer.from_pretrained(copy)
    assert type(ours) is type(theirs) and type(ours).__name__ == OWN_TOKENIZERS[kind][name]
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()


def test_a_kind_of_tokenizer_that_is_not_known_is_left_to_transformers(copy: Path) -> None:
    CONFIG_MAPPING["phi3"]().save_pretrained(copy)
    assert type(load_tokenizer(copy, label="m")) is type(AutoTokenizer.from_pretrained(copy))


def test_what_a_config_means_is_remembered_beside_the_models(tmp_path: Path) -> None:
    files = materialise(random_source(), models_root=tmp_path)
    assert len(json.loads((tmp_path / ARCHITECTURES).read_text())["files"]) == 1
    assert files.architecture == open_model(files.directory, label="m").architecture
