"""Narrower layers: which heads, channels and dimensions of a teacher stay, and how each tensor is cut to them.

Heads and channels are chosen in each layer separately; the dimensions of the residual stream are chosen once for the
whole model. Heads keep their width. What stays keeps its order, so keeping everything changes nothing.

Cutting the residual stream from H to h dimensions changes what an RMSNorm divides by. With n_i the normalised input of
the teacher, the student's norm of the same stream is too small by rms over the kept i of n_i, a number that differs
little between tokens; calibration gives its root mean square, and every gain is multiplied by it. Gemma multiplies
embeddings by the root of the width: they are stored larger by sqrt(H / h), and where the head is the same matrix the
final norm takes that back. Both are exact when the dimensions that go were zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64, Int64
from safetensors import safe_open
from torch import Tensor

from configs.errors import ConfigError, ModelError
from configs.model_files import weight_files
from configs.models import ModelShape
from student_train.starts.calibration import Calibration
from student_train.starts.sizes import kept_heads

LAYER = re.compile(r"(?:^|(?<=\.))layers\.(\d+)\.")
"""Finds the number of the layer in a tensor's name."""

_LINEARS = {
    "self_attn.q_proj": ("heads", "hidden"),
    "self_attn.k_proj": ("kv_heads", "hidden"),
    "self_attn.v_proj": ("kv_heads", "hidden"),
    "self_attn.o_proj": ("hidden", "heads"),
    "mlp.gate_proj": ("channels", "hidden"),
    "mlp.up_proj": ("channels", "hidden"),
    "mlp.down_proj": ("hidden", "channels"),
}
_AXES: dict[str, tuple[str, ...]] = {
    "embed_tokens.weight": ("vocab", "hidden"),
    "lm_head.weight": ("vocab", "hidden"),
    "norm.weight": ("hidden",),
    "input_layernorm.weight": ("hidden",),
    "post_attention_layernorm.weight": ("hidden",),
    "pre_feedforward_layernorm.weight": ("hidden",),
    "post_feedforward_layernorm.weight": ("hidden",),
    "self_attn.q_norm.weight": ("head",),
    "self_attn.k_norm.weight": ("head",),
    "self_attn.rotary_emb.inv_freq": ("rotations",),
    **{f"{name}.weight": axes for name, axes in _LINEARS.items()},
    **{f"{name}.bias": axes[:1] for name, axes in _LINEARS.items()},
}
"""What runs along each dimension of a tensor of a plain decoder (Llama, Mistral, Qwen2, Qwen3, Gemma and the like)."""

_GEMMAS = ("gemma", "gemma2", "gemma3_text")
"""Their gains are 1 + weight, and their embeddings are multiplied by the root of the width."""


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """What stays along each axis that is cut: positions, ascending, one row for each of the teacher's L layers.

    `gains` multiplies the norms by name, whose weights lack `gain_offset`; `embedding` multiplies the embedding.
    """

    kept: Mapping[str, Int64[Tensor, "L n"]]
    gains: Mapping[str, float]
    gain_offset: float
    embedding: float

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor that the teacher calls `name`, cut."""
        match = LAYER.search(name)
        # Outside the layers only the residual stream is cut, which is the same in all of them.
        layer = 0 if match is None else int(match.group(1))
        for dimension, axis in enumerate(_axes(name) or ()):
            if axis in self.kept:
                tensor = tensor.index_select(dimension, self.kept[axis][layer])
        if name in self.gains:
            gain = self.gains[name] * (tensor.double() + self.gain_offset)
            return (gain - self.gain_offset).to(tensor.dtype)
        if name.endswith("embed_tokens.weight") and self.embedding != 1.0:
            return (self.embedding * tensor.float()).to(tensor.dtype)
        return tensor


def choose_cuts(
    config: Mapping[str, Any],
    *,
    teacher: ModelShape,
    student: ModelShape,
    layers: tuple[int, ...],
    calibration: Calibration | None,
) -> Cuts:
    """Choose what stays where the student is narrower than the teacher; `layers` are those that the student keeps.

    Raises:
        ConfigError: there is no calibration of the widths of such a teacher.
    """
    scores = None if calibration is None else calibration.widths
    if scores is None or scores.heads.shape != (teacher.layers, teacher.heads):
        raise ConfigError("attention_heads, mlp_channels and hidden_size need the teacher's widths: calibrate it first")
    kept: dict[str, Tensor] = {}
    if student.heads < teacher.heads:
        heads, groups = _choose_heads(scores.heads, teacher=teacher, student=student)
        kept["heads"], kept["kv_heads"] = (
            rows_of_heads(heads, teacher.head_size),
            rows_of_heads(groups, teacher.head_size),
        )
    if student.mlp < teacher.mlp:
        kept["channels"] = best_positions(scores.channels, student.mlp)
    gemma = config["model_type"] in _GEMMAS
    if student.hidden == teacher.hidden:
        return Cuts(kept, {}, 0.0, 1.0)
    stay = {name for name in scores.norms if (match := LAYER.search(name)) is None or int(match.group(1)) in layers}
    hidden = best_positions(
        torch.stack([scores.norms[name].outputs for name in sorted(stay)]).sum(dim=0), student.hidden
    )
    kept["hidden"] = hidden.expand(teacher.layers, -1)
    gains = {name: math.sqrt(float(norm.squares[hidden].mean())) for name, norm in scores.norms.items()}
    embedding = math.sqrt(teacher.hidden / student.hidden) if gemma else 1.0
    if teacher.tied_embeddings:
        gains["model.norm.weight"] /= embedding
    return Cuts(kept, gains, float(gemma), embedding)


def narrowed_config(config: Mapping[str, Any], *, student: ModelShape) -> dict[str, Any]:
    """The config with the student's widths. It names the width of a head, which no longer follows from the others."""
    return {
        **config,
        "num_attention_heads": student.heads,
        "num_key_value_heads": student.kv_heads,
        "head_dim": student.head_size,
        "intermediate_size": student.mlp,
        "hidden_size": student.hidden,
    }


def require_narrowable(
    teacher_dir: Path, config: Mapping[str, Any], *, teacher: ModelShape, student: ModelShape
) -> None:
    """Make sure that every tensor of the teacher is one that can be cut, and that the student can be served.

    Raises:
        ModelError: naming the tensor that is unknown or of an unexpected shape.
    """
    sizes = {
        "vocab": teacher.vocab,
        "hidden": teacher.hidden,
        "heads": teacher.heads * teacher.head_size,
        "kv_heads": teacher.kv_heads * teacher.head_size,
        "head": teacher.head_size,
        "rotations": teacher.head_size // 2,
        "channels": teacher.mlp,
    }
    for shard in weight_files(teacher_dir):
        with safe_open(shard, framework="pt") as reader:
            for name in reader.keys():  # noqa: SIM118 - a safetensors reader is not iterable
                axes, shape = _axes(name), tuple(reader.get_slice(name).get_shape())
                if axes is None or shape != tuple(sizes[axis] for axis in axes):
                    raise ModelError(
                        f"{teacher_dir}: tensor {name} {list(shape)} cannot be made narrower: set keep_layers alone "
                        "for this teacher"
                    )
    if config["model_type"] == "qwen2" and student.hidden != student.heads * student.head_size:
        # vLLM computes the width of a Qwen2 head from these two.
        raise ModelError(
            f"a qwen2 student needs hidden_size = attention_heads x {student.head_size} to be served, not "
            f"{student.hidden} and {student.heads} heads: reduce both in proportion"
        )


def best_positions(scores: Float64[Tensor, "*rows n"], count: int) -> Int64[Tensor, "*rows m"]:
    """Positions of the `count` largest scores of each row, ascending; of equal ones the first stays."""
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :count].sort(dim=-1).values


def rows_of_heads(heads: Int64[Tensor, "L a"], size: int) -> Int64[Tensor, "L r"]:
    """The rows of a projection that belong to these heads."""
    return (heads[:, :, None] * size + torch.arange(size)).flatten(1)


def _axes(name: str) -> tuple[str, ...] | None:
    match = LAYER.search(name)
    return _AXES.get(name.removeprefix("model.") if match is None else name[match.end() :])


def _choose_heads(
    scores: Float64[Tensor, "L A"], *, teacher: ModelShape, student: ModelShape
) -> tuple[Int64[Tensor, "L a"], Int64[Tensor, "L g"]]:
    """The query heads and the key-value heads that stay, by layer."""
    groups, each = kept_heads(student.heads, heads=teacher.heads, kv_heads=teacher.kv_heads)
    grouped = scores.view(len(scores), teacher.kv_heads, -1)
    group = best_positions(grouped.sum(dim=2), groups)
    # Either all groups stay, or all heads of the groups that do, so the two choices do not depend on each other.
    heads = group[:, :, None] * grouped.shape[2] + best_positions(grouped, each)[:, :groups]
    return heads.flatten(1), group
