"""Which files of a model's directory are the model, and that reading them is bounded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import ModelError
from configs.model_files import (
    companions,
    mended_generation_config,
    read_config,
    read_generation_config,
    stop_ids_of,
    stray_weights,
    weight_files,
)

INDEX = "model.safetensors.index.json"


def names(model_dir: Path) -> list[str]:
    return [path.name for path in weight_files(model_dir)]


def write_index(model_dir: Path, *files: object) -> None:
    (model_dir / INDEX).write_text(json.dumps({"weight_map": {f"t{n}": name for n, name in enumerate(files)}}))


def touch(model_dir: Path, *files: str) -> None:
    for name in files:
        (model_dir / name).parent.mkdir(exist_ok=True)
        (model_dir / name).write_bytes(b"x")


def test_the_index_says_which_shards_are_the_model(tmp_path: Path) -> None:
    touch(tmp_path, "b.safetensors", "a.safetensors", "consolidated.safetensors", "adapter_model.safetensors")
    write_index(tmp_path, "b.safetensors", "a.safetensors", "b.safetensors")
    assert names(tmp_path) == ["a.safetensors", "b.safetensors"]
    assert stray_weights(tmp_path) == ("adapter_model.safetensors", "consolidated.safetensors")


def test_without_an_index_it_is_the_one_file_that_loads(tmp_path: Path) -> None:
    touch(tmp_path, "model.safetensors", "consolidated.safetensors")
    assert names(tmp_path) == ["model.safetensors"]
    write_index(tmp_path, "model.safetensors")
    assert names(tmp_path) == ["model.safetensors"]


def test_index_and_single_file_that_contradict_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "model.safetensors", "a.safetensors")
    write_index(tmp_path, "a.safetensors")
    with pytest.raises(ModelError, match=r"holds model\.safetensors and an index that names 1 files beginning with a"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), r"no \*\.safetensors here"),
        (("pytorch_model.bin",), r"no \*\.safetensors here"),
        (("adapter_model.safetensors",), r"holds adapter_model\.safetensors but neither .* no library loads them"),
    ],
)
def test_what_no_library_loads_is_refused(tmp_path: Path, files: tuple[str, ...], said: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(ModelError, match=said):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", "a.bin", 3, None, "\0.safetensors"]
)
def test_an_index_names_files_beside_it_only(tmp_path: Path, name: object) -> None:
    touch(tmp_path, "a.safetensors")
    write_index(tmp_path, name)
    with pytest.raises(ModelError, match="not a safetensors file here"):
        weight_files(tmp_path)


@pytest.mark.timeout(10)
def test_weights_that_are_not_regular_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="named pipe"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="device"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    with pytest.raises(ModelError, match="cannot be read"):
        weight_files(tmp_path)
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to("blob")
    assert names(tmp_path) == ["model.safetensors"], "the hub's snapshots are links to its blobs"


WANTED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "tokenizer.model.v3",
    "chat_template.jinja", "additional_chat_templates/tools.jinja", "generation_config.json", "LICENSE", "LICENSE.txt",
    "NOTICE", "merges.txt", "qwen.tiktoken",
)  # fmt: skip
UNWANTED = (
    "config.json", "README.md", "model.safetensors", "consolidated.00.pth", "tf_model.h5", "pytorch_model.bin",
    "flax_model.msgpack", "model.onnx", "onnx/model.onnx", "model.Q4.gguf", "model.gguf", "optimizer.pt",
    "training_args.bin", "rust_model.ot", "model.safetensors.index.json", "consolidated.safetensors", "params.json",
    "stillroom.json", "curves.jsonl", "trainer_state.json", "modeling_evil.py", ".gitattributes", "weights.npz",
)  # fmt: skip


def test_companions_are_a_list_of_what_a_student_needs(tmp_path: Path) -> None:
    touch(tmp_path, *WANTED, *UNWANTED)
    (tmp_path / "LICENSES").mkdir()
    assert sorted(str(path.relative_to(tmp_path)) for path in companions(tmp_path)) == sorted(WANTED)


@pytest.mark.timeout(10)
def test_a_companion_that_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json: is a named pipe"):
        companions(tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 500_000, "nested too deep"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested deeper than 64 levels"),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"vocab_size": ' + b"9" * 40 + b"}", "vocab_size is a number of 40 digits"),
        (b'{"num_hidden_layers": 1000000000}', "num_hidden_layers=1000000000 is more than any model has"),
        (b'{"text_config": {"num_hidden_layers": 1000000000}}', "num_hidden_layers=1000000000"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[]", "holds list, not a JSON object"),
        (b"null", "holds NoneType"),
        (b"", "not valid JSON"),
    ],
)
def test_a_config_that_means_no_model_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=said) as refused:
        read_config(tmp_path)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["eos_token_id", "weight_map", "num_hidden_layers", "text_config", "a"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@FUZZ
@given(content=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_files_hold_readers_give_a_value_or_one_line(tmp_path: Path, content: bytes) -> None:
    for name in ("config.json", "generation_config.json", INDEX):
        (tmp_path / name).write_bytes(content)
    touch(tmp_path, "a.safetensors")

    def attempt(read: Any) -> None:
        try:
            read()
        except ModelError as error:
            assert "\n" not in str(error)

    attempt(lambda: read_config(tmp_path))
    attempt(lambda: mended_generation_config(read_generation_config(tmp_path)))
    attempt(lambda: stop_ids_of(read_generation_config(tmp_path)))
    attempt(lambda: weight_files(tmp_path))


@pytest.mark.parametrize(("declared", "ids"), [(None, set()), (3, {3}), ([3, 5], {3, 5}), ([], set())])
def test_stops_are_one_id_or_several(declared: object, ids: set[int]) -> None:
    assert stop_ids_of({"eos_token_id": declared}) == ids


@pytest.mark.parametrize("declared", ["</s>", [1, "x"], -1, True, 2**40, {"a": 1}, [[1]]])
def test_stops_that_are_not_ids_are_refused(declared: object) -> None:
    with pytest.raises(ModelError, match="eos_token_id"):
        stop_ids_of({"eos_token_id": declared})


def test_greedy_settings_lose_what_only_sampling_reads_and_nothing_else() -> None:
    llama2 = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": 2, "max_length": 4096}
    assert mended_generation_config(llama2) == {"do_sample": False, "eos_token_id": 2, "max_length": 4096}
    assert mended_generation_config({"temperature": 0.9}) == {}
    sampled = {"do_sample": True, "temperature": 0.9, "top_k": 20}
    assert mended_generation_config(sampled) == sampled
