"""What a model is to a configuration: its shape, where it comes from, what it runs on; and the base of every block."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]

Device = Literal["cpu", "gpu"]
"""What engines and workers compute on."""


class Block(BaseModel):
    """Base of every block: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class GrownBlock(Block):
    """A block with keys that it did not always have: without them it is written, and addressed, as it was before."""

    later_keys: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = dump(self)
        for key in self.later_keys:
            if getattr(self, key) == type(self).model_fields[key].get_default(call_default_factory=True):
                said.pop(key, None)
        return said


class ModelShape(Block):
    """Sizes of a decoder, for planning where its files are not at hand and for random models."""

    layers: Positive
    hidden: Positive
    heads: Positive
    kv_heads: Positive
    mlp: Positive
    vocab: Positive
    head_dim: Positive | None = None
    tied_embeddings: bool = False
    max_positions: Positive = 4096

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.head_dim is None and self.hidden % self.heads:
            raise ValueError(
                f"hidden={self.hidden} is not a multiple of heads={self.heads}: correct one or name head_dim"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}: correct one")
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden // self.heads

    @property
    def parameters(self) -> int:
        """Number of weights of a Llama-style decoder of this shape."""
        attention = self.hidden * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        block = attention + 3 * self.hidden * self.mlp + 2 * self.hidden
        embeddings = self.vocab * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layers * block + embeddings + self.hidden


class ModelSource(Block):
    """Where a model comes from: exactly one of `hub`, `path`, `package` and `random`.

    Inside a package `file` names a GGUF file, or the folder of a model with its `config.json`.
    """

    hub: str | None = None
    revision: str | None = None
    path: Path | None = None
    package: str | None = None
    file: str | None = None
    random: ModelShape | None = None
    seed: int = 0
    shape: ModelShape | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("hub", "path", "package", "random") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"name exactly one of hub, path, package, random; got {', '.join(given) or 'none of them'}"
            )
        if (self.package is None) != (self.file is None):
            raise ValueError(f"package={self.package} and file={self.file} go together: name both")
        if self.revision is not None and self.hub is None:
            raise ValueError(f"revision={self.revision} needs hub: remove it or name the hub id")
        return self

    @property
    def label(self) -> str:
        """A short name for people."""
        if self.hub:
            return self.hub + (f"@{self.revision}" if self.revision else "")
        if self.path:
            return str(self.path)
        return f"{self.package}/{self.file}" if self.package else f"random(seed={self.seed})"
