"""How much each part of the teacher contributes to its output, measured while it reads some training sequences.

- Block influence of a layer: 1 - mean cosine of its input and its output (ShortGPT, Men et al. 2024,
  arXiv 2403.03853, equation 1).
- An attention head, or a channel of the MLP: the mean length of the vector that it adds to the residual stream. This
  is the activation score of Minitron (Muralidharan et al. 2024, arXiv 2407.14679, section 2.2), taken after the output
  projection, so that a head with large outputs that the projection ignores counts little.
- A dimension of the residual stream: the mean absolute output of each RMSNorm there, as in Minitron. The mean square
  before the gain is measured as well: a narrower norm has another mean square, and this says by how much.

Everything is summed over tokens in float64 while the teacher runs; no activation is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Integer
from torch import Tensor, nn

from configs.errors import DataError, ModelError
from student_train.models.decoder import TORCH_DTYPES, Decoder, load_decoder

_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


@dataclass(frozen=True, slots=True, eq=False)
class NormMeans:
    """One RMSNorm over H dimensions: mean absolute output, and mean square of the normalised input before the gain."""

    outputs: Float64[Tensor, " H"]
    squares: Float64[Tensor, " H"]


@dataclass(frozen=True, slots=True, eq=False)
class WidthScores:
    """Importance of the A heads and C channels of each of L layers; the means of every norm by its weight's name."""

    heads: Float64[Tensor, "L A"]
    channels: Float64[Tensor, "L C"]
    norms: Mapping[str, NormMeans]


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Means over `tokens` tokens, on the CPU. `widths` is None when only layers were measured."""

    tokens: int
    block_influence: Float64[Tensor, " L"]
    widths: WidthScores | None


def calibrate(
    teacher_dir: Path,
    sequences: Iterable[Integer[np.ndarray, " _"]],
    *,
    measure_widths: bool,
    dtype: str = "float32",
    device: str = "cpu",
) -> Calibration:
    """Run the teacher over `sequences` of token ids, one at a time, and measure its layers and, if asked, its widths.

    Raises:
        ModelError: the teacher cannot be loaded, or is not built as expected.
        DataError: there is no token in `sequences`.
    """
    decoder = load_decoder(teacher_dir, dtype=TORCH_DTYPES[dtype])
    decoder.model.to(device).eval()
    sums: dict[str, Tensor] = {}
    handles = _watch(decoder, sums, measure_widths=measure_widths)
    tokens = 0
    try:
        with torch.no_grad():
            for sequence in sequences:
                decoder.body(input_ids=torch.from_numpy(sequence.astype(np.int64))[None].to(device), use_cache=False)
                tokens += len(sequence)
    finally:
        for handle in handles:
            handle.remove()
    if not tokens:
        raise DataError(f"no tokens to calibrate {teacher_dir.name} on: give it at least one training sequence")
    means = {name: (total / tokens).cpu() for name, total in sums.items()}
    layers = range(len(_layers(decoder)))
    widths = None
    if measure_widths:
        widths = WidthScores(
            heads=torch.stack([means[f"{layer}.heads"] for layer in layers]),
            channels=torch.stack([means[f"{layer}.channels"] for layer in layers]),
            norms={name: NormMeans(means[f"{name}.outputs"], means[f"{name}.squares"]) for name, _ in _norms(decoder)},
        )
    influence = torch.stack([means[f"{layer}.influence"] for layer in layers])
    return Calibration(tokens, influence, widths)


def head_lengths(projection: nn.Linear, *, heads: int) -> Callable[[Tensor], Tensor]:
    """From the heads' outputs [T, A x D] to the length of what each head adds to the stream [T, A]."""
    columns = projection.weight.float().view(len(projection.weight), heads, -1)
    # |W z|^2 = z' (W' W) z costs D numbers a head and token; W z itself would cost H.
    gram = torch.einsum("had,hae->ade", columns, columns)

    def lengths(outputs: Float[Tensor, "T AD"]) -> Float[Tensor, "T A"]:
        per_head = outputs.reshape(len(outputs), heads, -1)
        return torch.einsum("tad,ade,tae->ta", per_head, gram, per_head).clamp_min(0.0).sqrt()

    return lengths


def channel_lengths(projection: nn.Linear) -> Callable[[Tensor], Tensor]:
    """From the channels [T, C] to the length of what each adds to the stream."""
    lengths = projection.weight.float().norm(dim=0)
    return lambda channels: channels.abs() * lengths


def _watch(decoder: Decoder, sums: dict[str, Tensor], *, measure_widths: bool) -> list[Any]:
    """Hooks that add what they see to `sums`; the handles to remove them by."""

    def add(name: str, values: Float[Tensor, "T *n"]) -> None:
        total = values.sum(dim=0, dtype=torch.float64)
        sums[name] = sums[name] + total if name in sums else total

    def watch_input(module: nn.Module, name: str, score: Callable[[Tensor], Tensor]) -> Any:
        return module.register_forward_pre_hook(lambda _, args: add(name, score(args[0][0].float())))

    def watch_layer(layer: nn.Module, name: str) -> Any:
        def see(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            add(name, 1.0 - torch.cosine_similarity(args[0][0].double(), output[0].double(), dim=-1))

        return layer.register_forward_hook(see)

    def watch_norm(norm: nn.Module, name: str) -> Any:
        def see(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            squares = args[0][0].float().square()
            add(f"{name}.outputs", output[0].float().abs())
            add(f"{name}.squares", squares / squares.mean(dim=-1, keepdim=True))

        return norm.register_forward_hook(see)

    handles = []
    for number, layer in enumerate(_layers(decoder)):
        handles.append(watch_layer(layer, f"{number}.influence"))
        if measure_widths:
            attention, mlp = _projections(decoder, layer)
            handles.append(
                watch_input(
                    attention,
                    f"{number}.heads",
                    head_lengths(attention, heads=decoder.model.config.num_attention_heads),
                )
            )
            handles.append(watch_input(mlp, f"{number}.channels", channel_lengths(mlp)))
    if measure_widths:
        handles += [watch_norm(norm, name) for name, norm in _norms(decoder)]
    return handles


def _layers(decoder: Decoder) -> nn.ModuleList:
    layers = getattr(decoder.body, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(
            f"{decoder.model.config.model_type} has no list of layers: only plain decoders can be calibrated"
        )
    return layers


def _projections(decoder: Decoder, layer: nn.Module) -> tuple[nn.Linear, nn.Linear]:
    try:
        attention, mlp = layer.get_submodule("self_attn.o_proj"), layer.get_submodule("mlp.down_proj")
    except AttributeError as error:
        raise ModelError(f"{decoder.model.config.model_type}: {error}: set keep_layers alone") from error
    assert isinstance(attention, nn.Linear)
    assert isinstance(mlp, nn.Linear)
    return attention, mlp


def _norms(decoder: Decoder) -> list[tuple[str, nn.Module]]:
    """The norms that read or write the residual stream, by the names of their weights."""
    return [
        (f"{name}.weight", module)
        for name, module in decoder.model.named_modules()
        if name == "model.norm" or name.endswith(_NORMS)
    ]
