"""Where students of a task start: what kind of model each one is, and where its weights come from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.models import Block, ModelSource, NonNegative, Positive
from configs.starts import require_kept_layers


class EncoderShape(Block):
    """Sizes of a BERT-like encoder of one's own, with the teacher's tokenizer and random weights."""

    layers: Positive
    hidden: Positive
    heads: Positive
    mlp: Positive
    max_positions: Positive = 512

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden={self.hidden} is not a multiple of heads={self.heads}: change one")
        return self


class TransformerStart(Block):
    """An encoder, or a decoder with a head: a model of its own, a shape, or what is kept of the teacher or that model.

    `layers_by` chooses which layers stay: the first ones (PKD), every second one (DistilBERT), evenly spread ones, or
    those that change their input most (`block_influence`). Widths are cut as those of language models are, measured on
    `calibration_rows` texts; what is measured is the teacher alone.
    """

    kind: Literal["transformer"]
    model: ModelSource | None = None
    shape: EncoderShape | None = None
    keep_layers: Positive | tuple[NonNegative, ...] | None = None
    layers_by: Literal["linspace", "first", "alternate", "block_influence"] = "linspace"
    attention_heads: Positive | None = None
    mlp_channels: Positive | None = None
    hidden_size: Positive | None = None
    calibration_rows: Positive = 64

    @property
    def narrows(self) -> bool:
        """Whether its layers are narrower than the teacher's."""
        return any(width is not None for width in (self.attention_heads, self.mlp_channels, self.hidden_size))

    @property
    def measured(self) -> bool:
        """Whether texts are read to choose what stays of the teacher."""
        return self.layers_by == "block_influence" or self.narrows

    @property
    def derived(self) -> bool:
        """Whether it is cut from the teacher, or from a model of its own."""
        return self.keep_layers is not None or self.narrows

    @property
    def in_teacher(self) -> bool:
        """Whether it takes weights of the teacher."""
        return self.derived and self.model is None

    def layers_of(self, total: int) -> int:
        """How many layers stay of a model that has `total`."""
        kept = total if self.keep_layers is None else self.keep_layers
        return kept if isinstance(kept, int) else len(kept)

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        given = [
            words
            for words, there in (
                ("model", self.model is not None),
                ("shape", self.shape is not None),
                ("what to keep of the teacher", self.in_teacher),
            )
            if there
        ]
        if len(given) != 1:
            raise ValueError(
                "name exactly one of model, shape and what to keep of the teacher (keep_layers, attention_heads, "
                f"mlp_channels, hidden_size); got {', '.join(given) or 'none of them'}"
            )
        if self.model is not None and self.measured:
            raise ValueError(
                "model with layers_by=block_influence, attention_heads, mlp_channels or hidden_size: what stays is "
                "measured on texts as the teacher reads them, so of a model keep layers alone (keep_layers, with "
                "layers_by: linspace, first or alternate)"
            )
        require_kept_layers(self.keep_layers, layers_by=self.layers_by)
        return self


class _OfEmbeddings(Block):
    """What models over embeddings have in common.

    `embeddings` are the teacher's, or random ones. A smaller `embedding_size` than the teacher's keeps what its
    largest singular values span.
    """

    embeddings: Literal["teacher", "random"] = "teacher"
    embedding_size: Positive | None = None
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1

    @property
    def in_teacher(self) -> bool:
        """Whether it takes weights of the teacher."""
        return self.embeddings == "teacher"

    @model_validator(mode="after")
    def _size_known(self) -> Self:
        if self.embeddings == "random" and self.embedding_size is None:
            raise ValueError("embeddings=random needs embedding_size, which is not set: set it")
        return self


class RecurrentStart(_OfEmbeddings):
    """A bidirectional recurrent network over embeddings.

    `pooling` makes one vector of its states for classification; tags and spans are read at their tokens.
    """

    kind: Literal["recurrent"]
    cell: Literal["lstm", "gru"] = "lstm"
    hidden: Positive = 128
    layers: Positive = 1
    pooling: Literal["max", "attention"] = "max"


class BagStart(_OfEmbeddings):
    """The mean of the embeddings of a text, with a layer of `hidden` units behind it if that is set.

    For classification alone.
    """

    kind: Literal["bag"]
    hidden: Positive | None = None


TaskStart = Annotated[TransformerStart | RecurrentStart | BagStart, Field(discriminator="kind")]
