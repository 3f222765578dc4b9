"""Narrower task students: encoders of the BERT family with fewer heads, channels and dimensions in every layer.

What stays is chosen as for language models (`student_train.starts.calibration`): heads and channels by the length of
what they add to the stream, dimensions by the mean absolute output of the norms, all over the tokens of some texts. A
head keeps its width, and an encoder of this family has hidden_size / attention_heads of it, so the two are cut in
proportion or not at all.

A LayerNorm of fewer dimensions has another mean and another variance than the teacher's. With n its normalised input
and S the dimensions that stay, it gives (n_i - mean_S n) / std_S n where the teacher gave n_i. Measured over the same
texts, the root mean square of std_S goes into the gain and the mean of mean_S into the bias.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from configs.errors import ConfigError, DataError, ModelError
from configs.task_starts import TransformerStart
from student_train.models.task_transformer import TransformerStudent, layers_of
from student_train.starts.calibration import channel_lengths, head_lengths
from student_train.starts.narrowing import best_positions, rows_of_heads
from student_train.starts.task_layers import Rows, read_watched

_LAYER = re.compile(r"\.layer\.(\d+)\.")

_LINEARS = {
    **{f"attention.self.{name}": ("heads", "hidden") for name in ("query", "key", "value")},
    **{f"attention.{name}_lin": ("heads", "hidden") for name in "qkv"},
    "attention.output.dense": ("hidden", "heads"),
    "attention.out_lin": ("hidden", "heads"),
    "intermediate.dense": ("channels", "hidden"),
    "ffn.lin1": ("channels", "hidden"),
    "output.dense": ("hidden", "channels"),
    "ffn.lin2": ("hidden", "channels"),
    "pooler.dense": ("hidden", "hidden"),
    "pre_classifier": ("hidden", "hidden"),
    "classifier.dense": ("hidden", "hidden"),
    "classifier.out_proj": ("", "hidden"),
    "classifier": ("", "hidden"),
    "qa_outputs": ("", "hidden"),
    "transform.dense": ("hidden", "hidden"),
    "predictions.decoder": ("", "hidden"),
}
_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_NORMS = ("LayerNorm", "sa_layer_norm", "output_layer_norm")
_AXES: dict[str, tuple[str, ...]] = {
    **{f"{name}.weight": axes for name, axes in _LINEARS.items()},
    **{f"{name}.bias": axes[:1] for name, axes in _LINEARS.items()},
    **{f"{name}.weight": ("", "hidden") for name in _TABLES},
    **{f"{name}.{part}": ("hidden",) for name in _NORMS for part in ("weight", "bias")},
    "predictions.bias": ("",),
}
"""What runs along each dimension of a tensor of BERT, RoBERTa, DistilBERT and the like, by the end of its name."""


@dataclass(frozen=True, slots=True)
class Widths:
    """The numbers of heads, MLP channels and dimensions of an encoder."""

    heads: int
    channels: int
    hidden: int


def planned_widths(start: TransformerStart, *, teacher: Widths) -> Widths:
    """The widths of the student.

    Raises:
        ConfigError: more than the teacher has, or heads and dimensions that are not cut in proportion.
    """
    wanted = {
        "attention_heads": (start.attention_heads, teacher.heads),
        "mlp_channels": (start.mlp_channels, teacher.channels),
        "hidden_size": (start.hidden_size, teacher.hidden),
    }
    for name, (width, there) in wanted.items():
        if width is not None and width > there:
            raise ConfigError(f"{name}={width} but the teacher has {there}: keep at most {there}")
    heads, channels, hidden = (there if width is None else width for width, there in wanted.values())
    size = teacher.hidden // teacher.heads
    if hidden != heads * size:
        raise ConfigError(
            f"hidden_size={hidden} and attention_heads={heads} but a head of this teacher is {size} wide: set "
            f"hidden_size to {size} times attention_heads, such as attention_heads: {max(1, hidden // size)} and "
            f"hidden_size: {size * max(1, hidden // size)}"
        )
    return Widths(heads, channels, hidden)


def narrow(student: TransformerStudent, start: TransformerStart, *, rows: Rows) -> None:
    """Make a student narrower, in place, by what `rows` of token ids show of it.

    Raises:
        ConfigError: see `planned_widths`.
        DataError: there is no token in `rows`.
        ModelError: it has a tensor that cannot be cut.
    """
    config = student.model.config
    channels_key = "hidden_dim" if hasattr(config, "hidden_dim") else "intermediate_size"
    there = Widths(config.num_attention_heads, int(getattr(config, channels_key, 0)), config.hidden_size)
    _require_known(student, there)
    wanted = planned_widths(start, teacher=there)
    if not sum(map(len, rows)):
        raise DataError("no tokens to measure the teacher's widths on: give it at least one text")
    kept = _choose(student, rows, there=there, wanted=wanted)
    weights = {
        name: _cut(weight, axes=_axes(name) or (), kept=kept, layer=_layer(name))
        for name, weight in student.model.state_dict().items()
    }
    if "hidden" in kept:
        _mend_norms(student, rows, kept["hidden"][0], weights)
    smaller = copy.deepcopy(config)
    for key, value in (
        ("num_attention_heads", wanted.heads),
        ("hidden_size", wanted.hidden),
        (channels_key, wanted.channels),
    ):
        setattr(smaller, key, value)
    with torch.random.fork_rng(devices=[]):
        model = type(student.model)(smaller)
    if getattr(student.model, "pooler", model) is None:
        model.pooler = None
    model.load_state_dict(weights)
    student.model = model.eval()


def _require_known(student: TransformerStudent, widths: Widths) -> None:
    sizes = {"heads": widths.hidden, "channels": widths.channels, "hidden": widths.hidden}
    for name, weight in student.model.state_dict().items():
        axes = _axes(name)
        fits = axes is not None and len(axes) == weight.dim()
        if not fits or any(axis and sizes[axis] != size for axis, size in zip(axes or (), weight.shape, strict=True)):
            raise ModelError(
                f"{student.model.config.model_type}: tensor {name} {list(weight.shape)} cannot be made narrower: set "
                "keep_layers alone for this teacher, or a shape"
            )


def _choose(
    student: TransformerStudent, rows: Rows, *, there: Widths, wanted: Widths
) -> dict[str, Int64[Tensor, "L n"]]:
    """What stays along each axis that is cut: positions, ascending, one row for each layer."""
    layers = layers_of(student.model)
    watched: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {}
    for place, layer in enumerate(layers):
        attention, mlp = _projections(layer)
        watched[f"{place}.heads"] = attention, head_lengths(attention, heads=there.heads)
        watched[f"{place}.channels"] = mlp, channel_lengths(mlp)
    for name, norm in _norms(student):
        watched[f"{name}.out"] = norm, _outputs(norm)
    means = _means(student, rows, watched)
    kept: dict[str, Tensor] = {}
    if wanted.heads < there.heads:
        scores = torch.stack([means[f"{place}.heads"] for place in range(len(layers))])
        kept["heads"] = rows_of_heads(best_positions(scores, wanted.heads), there.hidden // there.heads)
    if wanted.channels < there.channels:
        scores = torch.stack([means[f"{place}.channels"] for place in range(len(layers))])
        kept["channels"] = best_positions(scores, wanted.channels)
    if wanted.hidden < there.hidden:
        scores = torch.stack([means[f"{name}.out"] for name, _ in _norms(student)]).sum(dim=0)
        kept["hidden"] = best_positions(scores, wanted.hidden).expand(len(layers), -1)
    return kept


def _outputs(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    """From the inputs of a norm to its absolute outputs."""
    return lambda states: nn.functional.layer_norm(
        states, norm.normalized_shape, norm.weight, norm.bias, norm.eps
    ).abs()


def _mend_norms(
    student: TransformerStudent, rows: Rows, hidden: Int64[Tensor, " h"], weights: dict[str, Tensor]
) -> None:
    """Put into gains and biases what the norms of fewer dimensions are off by."""

    def statistics(states: Tensor) -> Tensor:
        """Mean and variance of the teacher's normalised input [T, H] over what stays [T, 2]."""
        normal = nn.functional.layer_norm(states, states.shape[-1:], eps=1e-12)[:, hidden]
        return torch.stack([normal.mean(dim=1), normal.var(dim=1, correction=0)], dim=1)

    for name, found in _means(student, rows, {name: (norm, statistics) for name, norm in _norms(student)}).items():
        mean, spread = float(found[0]), float(found[1]) ** 0.5
        gain = weights[f"{name}.weight"].double()
        weights[f"{name}.bias"] = (weights[f"{name}.bias"].double() + mean * gain).float()
        weights[f"{name}.weight"] = (spread * gain).float()


def _means(
    student: TransformerStudent, rows: Rows, watched: Mapping[str, tuple[nn.Module, Callable[[Tensor], Tensor]]]
) -> dict[str, Float64[Tensor, " n"]]:
    """Means over all tokens of what is made of the inputs [T, H] of modules, while the student reads rows."""
    sums: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module, make: Callable[[Tensor], Tensor]) -> RemovableHandle:
        def see(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            values = make(args[0][0].float()).double().sum(dim=0)
            sums[name] = sums[name] + values if name in sums else values

        return module.register_forward_pre_hook(see)

    read_watched(student, rows, [watch(name, module, make) for name, (module, make) in watched.items()])
    tokens = sum(map(len, rows))
    return {name: total / tokens for name, total in sums.items()}


def _projections(layer: nn.Module) -> tuple[nn.Linear, nn.Linear]:
    """What writes to the stream in a layer: behind the heads, and behind the channels."""
    names = dict(layer.named_modules())
    attention = names.get("attention.output.dense", names.get("attention.out_lin"))
    mlp = names.get("output.dense", names.get("ffn.lin2"))
    assert isinstance(attention, nn.Linear) and isinstance(mlp, nn.Linear)
    return attention, mlp


def _norms(student: TransformerStudent) -> list[tuple[str, nn.LayerNorm]]:
    return [
        (name, module)
        for name, module in student.model.named_modules()
        if name.endswith(_NORMS) and isinstance(module, nn.LayerNorm)
    ]


def _axes(name: str) -> tuple[str, ...] | None:
    """The axes of a tensor, by the longest end that its name has."""
    ends = [end for end in _AXES if name == end or name.endswith(f".{end}")]
    return _AXES[max(ends, key=len)] if ends else None


def _layer(name: str) -> int:
    """The layer of a tensor; outside the layers only dimensions are cut, which are the same in all of them."""
    found = _LAYER.search(name)
    return 0 if found is None else int(found.group(1))


def _cut(weight: Tensor, *, axes: Sequence[str], kept: Mapping[str, Int64[Tensor, "L n"]], layer: int) -> Tensor:
    for dimension, axis in enumerate(axes):
        if axis in kept:
            weight = weight.index_select(dimension, kept[axis][layer])
    return weight
