"""What a derived student keeps of its teacher, decided from sizes alone.

Everything here is known before any weight is read, so a start that cannot work is refused at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from configs.errors import ConfigError
from configs.models import ModelShape
from configs.starts import InitConfig

LayersBy = Literal["linspace", "contiguous", "first", "alternate", "block_influence"]


def kept_layers(
    keep_layers: int | tuple[int, ...] | None,
    *,
    total: int,
    by: LayersBy = "linspace",
    influence: Sequence[float] | None = None,
) -> tuple[int, ...]:
    """The indices of the teacher's layers that stay, ascending. None keeps all `total` of them.

    A number of layers is chosen `by`
      linspace         spread evenly, the first and the last among them; of twelve layers six are 0, 2, 4, 7, 9 and 11,
                       those of the published DistilBERT (Sanh et al. 2019, arXiv 1910.01108);
      first            the first ones (Patient KD, Sun et al. 2019, arXiv 1908.09355);
      alternate        every second from the first on, as DistilBERT's paper has it;
      contiguous       all but one run in the middle. Gromov et al. 2024 (arXiv 2403.17887) drop one run too; their rule
                       without measurements, the run just before the last layer, starts a SmolLM2-135M of 20 of its
                       30 layers at 25 nats from its teacher, the middle run at 4;
      block_influence  those of largest `influence`, one number a layer (ShortGPT, Men et al. 2024, arXiv 2403.03853).

    Raises:
        ConfigError: when `keep_layers` asks for what a teacher of `total` layers cannot give.
    """
    if keep_layers is None:
        return tuple(range(total))
    if isinstance(keep_layers, int):
        if not 0 < keep_layers <= total:
            raise ConfigError(f"keep_layers={keep_layers} but the model has {total} layers: keep 1 to {total}")
        return _chosen(keep_layers, total=total, by=by, influence=influence)
    if not keep_layers or list(keep_layers) != sorted(set(keep_layers)):
        raise ConfigError(f"keep_layers={list(keep_layers)} must be increasing, without repeats and not empty")
    if keep_layers[0] < 0 or keep_layers[-1] >= total:
        raise ConfigError(f"keep_layers={list(keep_layers)} but the model's layers are 0 to {total - 1}")
    return keep_layers


def kept_heads(attention_heads: int, *, heads: int, kv_heads: int) -> tuple[int, int]:
    """How many groups of query heads stay, and how many heads of each, for `attention_heads` in all.

    A group is the query heads that share one key-value head. If the number allows it, whole groups are dropped, because
    their keys and values go with them; otherwise every group loses the same number of heads.

    Raises:
        ConfigError: more heads than the teacher has, or a number that leaves groups of different sizes.
    """
    group = heads // kv_heads
    if attention_heads <= heads:
        if attention_heads % group == 0:
            return attention_heads // group, group
        if attention_heads % kv_heads == 0:
            return kv_heads, attention_heads // kv_heads
    allowed = sorted({*range(group, heads + 1, group), *range(kv_heads, heads + 1, kv_heads)})
    raise ConfigError(
        f"attention_heads={attention_heads} but the teacher has {heads} heads in {kv_heads} groups: "
        f"keep one of {', '.join(map(str, allowed))}"
    )


def planned_shape(init: InitConfig, *, teacher: ModelShape) -> ModelShape:
    """The shape of the student that `init` derives from a teacher of shape `teacher`.

    Raises:
        ConfigError: a layer, head, channel or width that the teacher does not have, or sizes that do not go together.
    """
    # How many stay follows from their number, whatever chooses them; but not every choice has as many.
    by: LayersBy = "alternate" if init.layers_by == "alternate" else "linspace"
    shape = teacher.model_copy(update={"layers": len(kept_layers(init.keep_layers, total=teacher.layers, by=by))})
    for name, wanted, there in (
        ("mlp_channels", init.mlp_channels, teacher.mlp),
        ("hidden_size", init.hidden_size, teacher.hidden),
    ):
        if wanted is not None and wanted > there:
            raise ConfigError(f"{name}={wanted} but the teacher has {there}: keep at most {there}")
    if not init.narrows:
        return shape
    groups, each = kept_heads(init.attention_heads or teacher.heads, heads=teacher.heads, kv_heads=teacher.kv_heads)
    sizes = {
        "heads": groups * each,
        "kv_heads": groups,
        # Heads keep their width, which no longer follows from the other two numbers.
        "head_dim": teacher.head_size,
        "mlp": init.mlp_channels or teacher.mlp,
        "hidden": init.hidden_size or teacher.hidden,
    }
    if sizes["hidden"] % sizes["heads"] and (sizes["hidden"], sizes["heads"]) != (teacher.hidden, teacher.heads):
        below = sizes["hidden"] - sizes["hidden"] % sizes["heads"]
        # transformers refuses such a Llama or Gemma, although its config names the width of a head.
        raise ConfigError(
            f"hidden_size={sizes['hidden']} is not a multiple of attention_heads={sizes['heads']}: "
            f"choose {below or below + sizes['heads']}, or another number of heads"
        )
    return shape.model_copy(update=sizes)


def _chosen(keep: int, *, total: int, by: LayersBy, influence: Sequence[float] | None) -> tuple[int, ...]:
    if by == "linspace":
        return tuple(int(layer) for layer in np.rint(np.linspace(0, total - 1, keep)))
    if by == "first":
        return tuple(range(keep))
    if by == "alternate":
        every_second = tuple(range(0, total, 2))
        if keep > len(every_second):
            raise ConfigError(
                f"keep_layers={keep} with layers_by={by} but the model has {total} layers: keep at most "
                f"{len(every_second)}"
            )
        return every_second[:keep]
    if by == "contiguous":
        first = (keep + 1) // 2
        return (*range(first), *range(total - keep + first, total))
    if influence is None or len(influence) != total:
        known = 0 if influence is None else len(influence)
        raise ConfigError(
            f"layers_by={by} needs the influence of all {total} layers but has {known}: calibrate this teacher"
        )
    order = np.argsort(-np.asarray(influence), kind="stable")
    return tuple(sorted(int(layer) for layer in order[:keep]))
