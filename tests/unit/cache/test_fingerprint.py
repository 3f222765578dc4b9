from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from cache import fingerprint
from cache.fingerprint import VOLATILE_CONFIG_KEYS, ModelFingerprint, fingerprint_model
from configs.errors import ModelError

CONFIG = {"model_type": "llama", "hidden_size": 8, "text_config": {"layers": 2}}


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "layer.1": rng.normal(size=(4, 3)).astype(np.float32),
        "layer.0": rng.normal(size=(2, 6)).astype(np.float16),
        "empty": np.empty((0, 4), dtype=np.float32),
        "scalar": np.array(1.5, dtype=np.float32),
    }


def save_model(
    path: Path, shards: dict[str, dict[str, np.ndarray]], *, config: dict[str, object] | None = None
) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, part in shards.items():
        save_file(part, path / name, metadata={"format": name})
    if [*shards] != ["model.safetensors"]:
        weight_map = {tensor: name for name, part in shards.items() for tensor in part}
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (path / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    return path


def test_sharding_and_saving_again_change_nothing(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    whole = save_model(tmp_path / "whole", {"model.safetensors": tensors})
    names = list(reversed(tensors))
    parts = save_model(
        tmp_path / "parts", {f"m-{i}.safetensors": {name: tensors[name]} for i, name in enumerate(names)}
    )
    assert fingerprint_model(whole) == fingerprint_model(parts)


@pytest.mark.parametrize("change", ["value", "name", "shape", "dtype", "fewer"])
def test_any_change_of_a_tensor_changes_the_weights(
    tmp_path: Path, tensors: dict[str, np.ndarray], change: str
) -> None:
    before = fingerprint_model(save_model(tmp_path / "a", {"model.safetensors": tensors}))
    changed = dict(tensors)
    moved = changed.pop("layer.1")
    if change == "value":
        changed["layer.1"] = moved + np.float32(1e-6)
    elif change == "name":
        changed["layer.2"] = moved
    elif change == "shape":
        changed["layer.1"] = moved.reshape(3, 4)
    elif change == "dtype":
        changed["layer.1"] = moved.view(np.int32)
    after = fingerprint_model(save_model(tmp_path / "b", {"model.safetensors": changed}))
    assert after.weights_sha256 != before.weights_sha256
    assert after.config_sha256 == before.config_sha256


def config_digest(path: Path, config: dict[str, object]) -> str:
    tensor = {"x": np.zeros(1, dtype=np.float32)}
    return fingerprint_model(save_model(path, {"model.safetensors": tensor}, config=config)).config_sha256


@pytest.mark.parametrize("key", sorted(VOLATILE_CONFIG_KEYS))
def test_what_saving_rewrites_is_no_part_of_the_configuration(tmp_path: Path, key: str) -> None:
    nested = {**CONFIG, key: "x", "text_config": {"layers": 2, key: "y"}}
    assert config_digest(tmp_path / "a", nested) == config_digest(tmp_path / "b", CONFIG)


def test_everything_else_is_part_of_the_configuration(tmp_path: Path) -> None:
    plain = config_digest(tmp_path / "a", CONFIG)
    assert config_digest(tmp_path / "b", {**CONFIG, "hidden_size": 9}) != plain
    assert config_digest(tmp_path / "c", {**CONFIG, "text_config": {"layers": 3}}) != plain
    quantized = config_digest(tmp_path / "d", {**CONFIG, "quantization_config": {"dtype": "int4"}})
    assert quantized != config_digest(tmp_path / "e", {**CONFIG, "quantization_config": {"dtype": "int8"}})


def test_the_memo_spares_reading_until_the_file_changes(
    tmp_path: Path, tensors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, memo = save_model(tmp_path / "m", {"model.safetensors": tensors}), tmp_path / "memo" / "memo.json"
    first = fingerprint_model(model, memo=memo)
    reads: list[Path] = []
    hashed = fingerprint._hash_tensors

    def counted(path: Path, **options: Any) -> dict[str, str]:
        reads.append(path)
        return hashed(path, **options)

    monkeypatch.setattr(fingerprint, "_hash_tensors", counted)
    assert fingerprint_model(model, memo=memo) == first
    assert reads == []
    save_model(model, {"model.safetensors": {**tensors, "new": np.ones(3, dtype=np.float32)}})
    assert fingerprint_model(model, memo=memo) != first
    assert reads == [model / "model.safetensors"]


def test_weights_replaced_with_the_same_size_and_time_are_read_again(
    tmp_path: Path, tensors: dict[str, np.ndarray]
) -> None:
    model, memo = save_model(tmp_path / "m", {"model.safetensors": tensors}), tmp_path / "memo.json"
    first, path = fingerprint_model(model, memo=memo), model / "model.safetensors"
    before = path.stat()
    changed = {**tensors, "scalar": np.array(2.5, dtype=np.float32)}
    other = save_model(tmp_path / "other", {"model.safetensors": changed})
    wanted = fingerprint_model(other)

    # As `tar x` and `rsync -t` do it, and as `cp` with the time set back does it: another inode, the same inode.
    for way in ("renamed", "written in place"):
        content = (other / "model.safetensors").read_bytes()
        if way == "renamed":
            (model / "new").write_bytes(content)
            os.utime(model / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
            (model / "new").rename(path)
        else:
            path.write_bytes(content)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert fingerprint_model(model, memo=memo) == wanted != first, way
        save_model(model, {"model.safetensors": tensors})
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert fingerprint_model(model, memo=memo) == first


def test_reading_anew_believes_no_memo_and_corrects_it(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    model, memo = save_model(tmp_path / "m", {"model.safetensors": tensors}), tmp_path / "memo.json"
    right = fingerprint_model(model, memo=memo)
    stored = json.loads(memo.read_text())
    (entry,) = stored["files"].values()
    entry["tensors"]["scalar"] = "0" * 64
    memo.write_text(json.dumps(stored))
    assert fingerprint_model(model, memo=memo) != right, "the memo was not believed, so this proves nothing"
    assert fingerprint_model(model, memo=memo, reread=True) == right
    assert fingerprint_model(model, memo=memo) == right


def test_a_second_copy_of_the_weights_changes_nothing(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    names = list(tensors)
    shards = {"a.safetensors": {names[0]: tensors[names[0]]}, "b.safetensors": {n: tensors[n] for n in names[1:]}}
    model = save_model(tmp_path / "m", shards)
    before = fingerprint_model(model)
    save_file(tensors, model / "consolidated.safetensors")
    save_file({"lora": tensors["scalar"]}, model / "adapter_model.safetensors")
    assert fingerprint_model(model) == before


def test_the_memo_holds_what_is_there_and_no_more_than_its_bound(
    tmp_path: Path, tensors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    memo = tmp_path / "memo.json"
    monkeypatch.setattr(fingerprint, "MOST_REMEMBERED", 3)
    models = [save_model(tmp_path / f"m{n}", {"model.safetensors": tensors}) for n in range(5)]
    for model in models:
        fingerprint_model(model, memo=memo)
    assert [Path(path).parent for path in json.loads(memo.read_text())["files"]] == models[2:]
    shutil.rmtree(models[3])
    fingerprint_model(models[0], memo=memo)
    assert [Path(path).parent for path in json.loads(memo.read_text())["files"]] == [models[2], models[4], models[0]]


@pytest.mark.timeout(10)
def test_a_memo_or_weights_that_are_not_files_hold_nobody_up(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    model, memo = save_model(tmp_path / "m", {"model.safetensors": tensors}), tmp_path / "memo.json"
    os.mkfifo(memo)
    assert fingerprint_model(model, memo=memo) == fingerprint_model(model)
    (model / "model.safetensors").unlink()
    os.mkfifo(model / "model.safetensors")
    with pytest.raises(ModelError, match="named pipe"):
        fingerprint_model(model)


HEADER = st.dictionaries(
    st.sampled_from(["x", "__metadata__"]) | st.text(max_size=4),
    st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {},
            optional={
                "dtype": st.sampled_from(["F32", "BF16"]) | st.none() | st.integers() | st.text(max_size=3),
                "shape": st.lists(st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=2), max_size=3),
                "data_offsets": st.lists(st.integers(-(2**70), 2**70) | st.booleans() | st.none(), max_size=3)
                | st.just([0, 4]),
            },
        ),
    ),
    max_size=3,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=HEADER.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40),
    length=st.none() | st.integers(0, 2**64 - 1),
)
def test_whatever_a_header_holds_there_is_a_digest_or_one_line(
    tmp_path: Path, header: bytes, length: int | None
) -> None:
    (tmp_path / "config.json").write_text("{}")
    said = (len(header) if length is None else length).to_bytes(8, "little")
    (tmp_path / "model.safetensors").write_bytes(said + header + b"\0\0\0\0")
    try:
        assert len(fingerprint_model(tmp_path).weights_sha256) == 64
    except ModelError as error:
        assert "\n" not in str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stored=st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["format", "files", "stamp", "tensors", "PATH"]), inner, max_size=4)
        ),
        max_leaves=8,
    ),
    wrapped=st.booleans(),
)
def test_whatever_a_memo_holds_the_digest_is_right(tmp_path: Path, stored: object, wrapped: bool) -> None:
    model, memo = tmp_path / "m", tmp_path / "memo.json"
    if not model.exists():
        save_model(model, {"model.safetensors": {"x": np.zeros(1, dtype=np.float32)}})
    content = {"format": fingerprint.MEMO_FORMAT, "files": stored} if wrapped else stored
    memo.write_text(json.dumps(content).replace("PATH", str(model / "model.safetensors")))
    assert fingerprint_model(model, memo=memo) == fingerprint_model(model)


def test_progress_counts_the_bytes_that_have_to_be_hashed(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    names = list(tensors)
    parts = {"a.safetensors": {names[0]: tensors[names[0]]}, "b.safetensors": {n: tensors[n] for n in names[1:]}}
    model, memo = save_model(tmp_path / "m", parts), tmp_path / "memo.json"
    told: list[tuple[int, int]] = []
    fingerprint_model(model, memo=memo, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == sum(array.nbytes for array in tensors.values())
    assert told[-1][0] <= told[-1][1] == sum(path.stat().st_size for path in model.glob("*.safetensors"))
    told.clear()
    fingerprint_model(model, memo=memo, progress=lambda done, total: told.append((done, total)))
    assert told == [], "what the memo knows is not read again"


def test_a_damaged_memo_is_written_anew(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    model, memo = save_model(tmp_path / "m", {"model.safetensors": tensors}), tmp_path / "memo.json"
    memo.write_text("{torn")
    assert fingerprint_model(model, memo=memo) == fingerprint_model(model)
    assert json.loads(memo.read_text())["files"]


def test_no_safetensors_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"safetensors.*save_pretrained"):
        fingerprint_model(tmp_path)


def test_a_missing_or_broken_config_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    model = save_model(tmp_path, {"model.safetensors": tensors})
    (model / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json"):
        fingerprint_model(model)
    (model / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        fingerprint_model(model)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    first = {"layer.1": tensors["layer.1"]}
    model = save_model(tmp_path, {"a.safetensors": tensors, "b.safetensors": {**first, "other": tensors["scalar"]}})
    with pytest.raises(ModelError, match="two files"):
        fingerprint_model(model)


@pytest.mark.parametrize("cut", [4, 20, 200, -1])
def test_a_cut_file_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray], cut: int) -> None:
    model = save_model(tmp_path, {"model.safetensors": tensors})
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:cut])
    with pytest.raises(ModelError):
        fingerprint_model(model)


def test_a_header_that_points_outside_the_file_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4000]}}).encode()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    with pytest.raises(ModelError, match="outside"):
        fingerprint_model(tmp_path)


def test_a_fingerprint_is_two_hex_digests(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    found = fingerprint_model(save_model(tmp_path, {"model.safetensors": tensors}))
    assert isinstance(found, ModelFingerprint)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in (found.weights_sha256, found.config_sha256))
