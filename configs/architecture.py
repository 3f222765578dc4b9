"""The one reader of what a model's `config.json` means: its sizes, positions, tokens, layers, and what its head does.

A config.json leaves out what is the default of its architecture (tied embeddings of a Gemma, key-value heads of a
Mistral, positions of an old Llama), so the file alone does not say. transformers, which will load the model, fills that
in, and is imported when a file is read and not before (docs/decisions/0019-one-reader.md). It is handed only what
`configs.model_files.read_config` has found to be bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.errors import ModelError
from configs.model_files import CONFIG, read_config
from configs.models import ModelShape
from configs.task_features import InsideSizes
from configs.visible_text import first_line

POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")
UNSAID_POSITIONS = 2048
"""Where an architecture names no limit; what vLLM serves such a model with."""

MLP_KEYS = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner")
ENCODER_MLP_KEYS = (*MLP_KEYS, "hidden_dim")
"""Where none of them is set (GPT-2, BLOOM, MPT) an MLP is four times as wide as the residual stream."""

HEAD_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier")
"""Factors between the head's product and the logits (Cohere, Granite, Falcon-H1)."""


DECODERS = frozenset({"gemma2", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"})
"""Kinds of causal language models that are known without asking transformers, which takes four seconds to load them."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a model is built like.

    `model_type` is the name that transformers has for its kind, `classes` are those that the file names itself.
    `layer_types` is the kind of attention of every layer, where the architecture knows several.
    """

    model_type: str
    classes: tuple[str, ...]
    shape: ModelShape
    layer_types: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class TextModel:
    """A model of text with any head, or none: its sizes, and the labels of a head in the order of its logits."""

    layers: int
    hidden: int
    mlp: int
    positions: int
    labels: tuple[str, ...]
    heads: int
    vocab: int

    @property
    def inside(self) -> InsideSizes:
        """Of what is inside it."""
        return InsideSizes((self.hidden,) * (self.layers + 1), self.heads)

    @property
    def block_weights(self) -> int:
        """Weights of all blocks, which every token is multiplied by; of attention with as many keys as queries."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.mlp)


@dataclass(frozen=True, slots=True)
class HeadForm:
    """What happens to the product of hidden states and output matrix before it is logits.

    `softcap` bounds it by a tanh; `scales` are the keys of factors other than 1.
    """

    softcap: float | None
    scales: tuple[str, ...]


def read_architecture(model_dir: Path) -> Architecture:
    """Read the `config.json` in `model_dir`.

    Raises:
        ModelError: it cannot be read, transformers does not know such a model, or it is not a decoder.
    """
    path, config = model_dir / CONFIG, parsed_config(model_dir)
    text = config.get_text_config()
    if _value(config, "is_encoder_decoder") or _value(config, "is_decoder") is False:
        raise ModelError(f"{path} does not describe a decoder: model_type={config.model_type} is an encoder")
    classes, kinds = _value(config, "architectures"), _value(text, "layer_types")
    return Architecture(
        model_type=config.model_type,
        classes=tuple(map(str, classes)) if isinstance(classes, list) else (),
        shape=_shape(text, tied=read_config(model_dir).get("tie_word_embeddings"), path=path),
        layer_types=None if kinds is None else tuple(map(str, kinds)),
    )


def read_text_model(model_dir: Path) -> TextModel:
    """Read the `config.json` in `model_dir`, of an encoder or a decoder.

    Raises:
        ModelError: it cannot be read, transformers does not know such a model, or a size or a label is not named.
    """
    path, config = model_dir / CONFIG, _any_config(model_dir)
    sizes = {name: _value(config, name) for name in ("num_hidden_layers", "hidden_size", "vocab_size")}
    sizes["heads"] = _value(config, "num_attention_heads") or 1
    sizes["positions"] = next((found for key in POSITION_KEYS if (found := _value(config, key))), UNSAID_POSITIONS)
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ModelError(f"{path} has {name}={size!r}: name a model that states it")
    names = _value(config, "id2label") or {}
    if sorted(names) != list(range(len(names))):
        raise ModelError(f"{path}: id2label does not name labels 0, 1, ...: correct it")
    mlp = next((found for key in ENCODER_MLP_KEYS if (found := _value(config, key))), 4 * sizes["hidden_size"])
    labels = tuple(str(names[place]) for place in range(len(names)))
    layers, hidden = sizes["num_hidden_layers"], sizes["hidden_size"]
    return TextModel(layers, hidden, mlp, sizes["positions"], labels, heads=sizes["heads"], vocab=sizes["vocab_size"])


def parsed_config(model_dir: Path) -> Any:
    """The configuration object that transformers builds this model from.

    Raises:
        ModelError: it cannot be read, or transformers has no causal language model of this kind.
    """
    config = _any_config(model_dir)
    if config.model_type not in DECODERS and not _is_decoder(config.model_type):
        raise ModelError(
            f"{model_dir / CONFIG} does not describe a decoder: transformers has no causal language model of "
            f"model_type={config.model_type}: name another model"
        )
    return config


def _is_decoder(model_type: str) -> bool:
    # The table of all of them stands beside their classes, and loads torch with everything around it.
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _any_config(model_dir: Path) -> Any:
    read_config(model_dir)
    # Imported late: whoever only plans with assumed shapes does not pay for it.
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model_dir, trust_remote_code=False, local_files_only=True)
    # Each architecture has a parser of its own, which may die of anything that it does not expect.
    except Exception as error:
        raise ModelError(
            f"{model_dir / CONFIG}: transformers cannot read it ({first_line(error)}): check model_type, or save the "
            "model with the transformers of this installation"
        ) from error


def head_form(config: Any) -> HeadForm:
    """What the head of a model does that was built from this configuration (see `parsed_config`)."""
    scales = tuple(name for name in HEAD_SCALES if _value(config, name) not in (None, 1.0))
    return HeadForm(softcap=_value(config, "final_logit_softcapping"), scales=scales)


def _shape(text: Any, *, tied: bool | None, path: Path) -> ModelShape:
    """The sizes of a text model. `tied` is what the file says itself; the text part of a model of images may not."""
    heads, hidden = _value(text, "num_attention_heads"), _value(text, "hidden_size")
    mlp = next((found for key in MLP_KEYS if (found := _value(text, key)) is not None), None)
    positions = next((found for key in POSITION_KEYS if (found := _value(text, key))), UNSAID_POSITIONS)
    try:
        return ModelShape(
            layers=_value(text, "num_hidden_layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=_value(text, "num_key_value_heads") or heads,
            mlp=4 * hidden if mlp is None and isinstance(hidden, int) else mlp,
            vocab=_value(text, "vocab_size"),
            head_dim=_value(text, "head_dim"),
            tied_embeddings=bool(_value(text, "tie_word_embeddings") if tied is None else tied),
            max_positions=positions,
        )
    except ValidationError as error:
        first = error.errors()[0]
        keys = ", ".join(str(item["loc"][0]) for item in error.errors() if item["loc"])
        reason = f"no usable {keys}" if keys else str(first["ctx"]["error"])
        raise ModelError(f"{path} does not describe a decoder: {reason}") from error


def _value(config: Any, name: str) -> Any:
    """An attribute, or None where the architecture has none, or another one in every layer."""
    try:
        return getattr(config, name, None)
    except (ValueError, RuntimeError, TypeError, LookupError):
        return None
