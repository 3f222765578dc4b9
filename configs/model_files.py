"""Which files of a model's directory are the model, and how they are read.

A repository holds more than the model: the same weights once more in the publisher's own format, in pickles, for other
frameworks. What loads is what `model.safetensors.index.json` names, else `model.safetensors`; nothing else is hashed,
served or cut. Beside it a student needs its teacher's tokenizer, templates and licence, and none of the rest.

Links are followed, because the hub's snapshots link to its blobs; what they lead to has to be a regular file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from configs.errors import ModelError
from configs.regular_files import UnreadableFileError, open_regular, parse_json, read_regular

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
WEIGHTS_INDEX = "model.safetensors.index.json"

SPEECH = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model*", "spiece.model", "sentencepiece.bpe.model", "*.tiktoken",
    "tekken.json", "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja",
    GENERATION_CONFIG,
)  # fmt: skip
"""How a model is spoken to and how it ends: tokenizer, templates, settings of generation."""

COMPANIONS = (*SPEECH, "LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")
"""What belongs to a model besides config and weights. A list of what is wanted, since nobody can list the rest."""

CONFIG_BYTES = 16 * 2**20
INDEX_BYTES = 64 * 2**20
COMPANION_BYTES = 256 * 2**20
"""No file of these kinds is longer; the longest known tokenizer has 33 MB."""

DEEPEST = 64
LARGEST_NUMBER = 2**53
MOST_LAYERS = 4096
"""Bounds of a config.json of a model: libraries make lists of that many layers, and recurse into every level."""


def weight_files(model_dir: Path) -> tuple[Path, ...]:
    """The safetensors files that loaders read, by name.

    Raises:
        ModelError: there are none, one is missing or is not a regular file, or index and single file contradict.
    """
    index, single = model_dir / WEIGHTS_INDEX, model_dir / WEIGHTS
    names = weight_names(model_dir)
    if _is_there(index):
        if _is_there(single) and names != (WEIGHTS,):
            raise ModelError(
                f"{model_dir} holds {WEIGHTS} and an index that names {len(names)} files beginning with {names[0]}, "
                "and libraries differ in which they load: remove the one that is not the model"
            )
        missing = [name for name in names if not _is_there(model_dir / name)]
        if missing:
            raise ModelError(
                f"{model_dir} lacks {missing[0]}, one of its {len(names)} weight files: copy or download it again"
            )
    elif not _is_there(single):
        raise _no_weights(model_dir)
    files = tuple(model_dir / name for name in names)
    for path in files:
        _require_regular(path)
    return files


def weight_names(model_dir: Path) -> tuple[str, ...]:
    """The names of the weight files, whether they are there or not.

    Raises:
        ModelError: the index cannot be read.
    """
    index = model_dir / WEIGHTS_INDEX
    return tuple(sorted(set(_weight_map(index).values()))) if _is_there(index) else (WEIGHTS,)


def has_weights(model_dir: Path) -> bool:
    """Whether all files of the weights are there.

    Raises:
        ModelError: the index cannot be read.
    """
    return all(_is_there(model_dir / name) for name in weight_names(model_dir))


def stray_weights(model_dir: Path) -> tuple[str, ...]:
    """Names of safetensors files that lie beside the model and are not part of it."""
    model = {path.name for path in weight_files(model_dir)}
    return tuple(sorted(path.name for path in model_dir.glob("*.safetensors") if path.name not in model))


def companions(model_dir: Path) -> tuple[Path, ...]:
    """The files besides config and weights that a student takes over.

    Raises:
        ModelError: one of them is not a regular file, or is longer than such a file may be.
    """
    found = sorted({path for pattern in COMPANIONS for path in model_dir.glob(pattern) if not path.is_dir()})
    for path in found:
        _require_regular(path, at_most=COMPANION_BYTES)
    return tuple(found)


def speech_sha256(model_dir: Path) -> str:
    """SHA-256 (hex) over the names and contents of a model's tokenizer, templates and settings of generation.

    Raises:
        ModelError: see `companions`.
    """
    digests = {
        name: hashlib.sha256(read_regular(path, at_most=COMPANION_BYTES, links="follow")).hexdigest()
        for path in companions(model_dir)
        if _is_named(name := path.relative_to(model_dir).as_posix(), SPEECH)
    }
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _is_named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def read_config(model_dir: Path) -> dict[str, Any]:
    """The content of `config.json`, as it stands there.

    Raises:
        ModelError: missing, not a regular file, not a JSON object, or with numbers or depths that no model has.
    """
    path = model_dir / CONFIG
    config = read_object(path, at_most=CONFIG_BYTES)
    for key, value in _scalars(path, config):
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise ModelError(f"{path}: {key} is a number of {len(str(value))} digits: fetch the model again")
        layers = key.endswith(("layers", "n_layer", "num_blocks"))
        if layers and isinstance(value, int) and value > MOST_LAYERS:
            raise ModelError(f"{path}: {key}={value} is more than any model has: fetch the model again")
    return config


def read_generation_config(model_dir: Path) -> dict[str, Any]:
    """The content of `generation_config.json`; empty where there is none.

    Raises:
        ModelError: not a regular file, or not a JSON object.
    """
    path = model_dir / GENERATION_CONFIG
    return read_object(path, at_most=CONFIG_BYTES) if _is_there(path) else {}


def read_object(path: Path, *, at_most: int) -> dict[str, Any]:
    """The JSON object in a file of a model.

    Raises:
        ModelError: missing, not a regular file, longer than `at_most` bytes, or not a JSON object.
    """
    try:
        content = parse_json(read_regular(path, at_most=at_most, links="follow"), origin=str(path))
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent}: no {path.name} here: name a directory saved by save_pretrained") from error
    except UnreadableFileError as error:
        raise ModelError(f"{error}: fetch the model again") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}): check the model directory") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds {type(content).__name__}, not a JSON object: fetch the model again")
    return content


def stop_ids_of(generation_config: Mapping[str, Any]) -> frozenset[int]:
    """The ids that end an answer, as a generation config declares them.

    Raises:
        ModelError: they are not token ids.
    """
    declared = generation_config.get("eos_token_id")
    ids = declared if isinstance(declared, list) else [] if declared is None else [declared]
    if not all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 2**31 for each in ids):
        shown = json.dumps(declared)[:80]
        raise ModelError(
            f"{GENERATION_CONFIG}: eos_token_id={shown} is not a token id or a list of token ids: correct it"
        )
    return frozenset(ids)


def mended_generation_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A generation config without settings that contradict each other.

    `do_sample: false` beside a temperature (Llama 2, Vicuna) is read by every library as greedy writing, but is refused
    when it is saved. Without the settings of sampling it says the same and can be saved.
    """
    if config.get("do_sample", False):
        return dict(config)
    return {key: value for key, value in config.items() if key not in _OF_SAMPLING}


_OF_SAMPLING = frozenset(
    {"temperature", "top_p", "top_k", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "min_temperature"}
)


def _weight_map(index: Path) -> dict[str, str]:
    """The file of every tensor. Names are those of files in the same directory."""
    found = read_object(index, at_most=INDEX_BYTES).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise ModelError(f"{index}: has no weight_map: fetch the model again")
    for tensor, name in found.items():
        fine = isinstance(name, str) and name.endswith(".safetensors") and name == Path(name).name and "\0" not in name
        if not fine:
            raise ModelError(f"{index}: tensor {tensor[:80]!r} lies in {str(name)[:80]!r}, not a safetensors file here")
    return found


def _no_weights(model_dir: Path) -> ModelError:
    strays = ", ".join(sorted(path.name for path in model_dir.glob("*.safetensors"))[:3])
    if strays:
        return ModelError(
            f"{model_dir} holds {strays} but neither {WEIGHTS} nor {WEIGHTS_INDEX}, so no library loads them: save "
            "the whole model with save_pretrained (adapters merged) and name that directory"
        )
    return ModelError(
        f"{model_dir}: no *.safetensors here (pickles are not read): save the model with save_pretrained and name that "
        "directory"
    )


def _is_there(path: Path) -> bool:
    """Whether anything bears the name, also a link that leads nowhere: that is damage, not absence."""
    return path.is_symlink() or path.exists()


def _require_regular(path: Path, *, at_most: int | None = None) -> None:
    try:
        with open_regular(path, links="follow") as stream:
            size = stream.seek(0, 2)
    except UnreadableFileError as error:
        raise ModelError(f"{error}: fetch the model again") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}): fetch the model again") from error
    if at_most is not None and size > at_most:
        raise ModelError(f"{path}: is longer than the {at_most:,} bytes that it may have: fetch the model again")


def _scalars(path: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value that is neither list nor object, with its key; nothing recurses, whatever the depth."""
    level: list[tuple[str, Any]] = list(config.items())
    for _ in range(DEEPEST):
        deeper: list[tuple[str, Any]] = []
        for key, value in level:
            if isinstance(value, dict):
                deeper += value.items()
            elif isinstance(value, list):
                deeper += [(key, item) for item in value]
            else:
                yield key, value
        if not deeper:
            return
        level = deeper
    raise ModelError(f"{path}: is nested deeper than {DEEPEST} levels: fetch the model again")
