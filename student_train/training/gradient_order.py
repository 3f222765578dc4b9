"""Gradients that arrive in the same order on every process, whatever it reads.

ZeRO 1 and 2 put gradients into a bucket as they arrive, and sum the buckets of all processes place by place. Nothing
says whose gradient lies where, so an order of their own on one process adds the gradient of one weight to that of
another, silently. The backward pass of torch's recurrent layers has such an order on a CPU: it is another one where
every sequence has a single token.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function


class _Together(Function):
    """The same tensors, whose gradients are handed on all at once."""

    @staticmethod
    def forward(_: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        return tuple(weight.view_as(weight) for weight in weights)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients


def fix_gradient_order(model: nn.Module) -> None:
    """Make gradients of recurrent layers arrive in one order, in place. What the model computes stays the same."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.register_forward_pre_hook(_bundle)
            module.register_forward_hook(_unbundle, always_call=True)


def _bundle(layers: nn.RNNBase, _: Any) -> None:
    # What torch's kernels are given; the parameters themselves stay where they are.
    layers._flat_weights = list(_Together.apply(*layers._flat_weights))  # type: ignore[no-untyped-call]


def _unbundle(layers: nn.RNNBase, *_: Any) -> None:
    layers._flat_weights = [getattr(layers, name) for name in layers._flat_weights_names]
