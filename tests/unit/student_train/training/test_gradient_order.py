"""Recurrent layers: the order in which their gradients arrive, and the gradients themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from student_train.training.gradient_order import fix_gradient_order

ROWS = ([1], [1, 1, 1], [5, 3], [2, 2], [11, 1, 1])


def backward(cell: type[nn.RNNBase], lengths: list[int], *, fixed: bool) -> tuple[list[str], dict[str, Tensor]]:
    """The names of the weights as their gradients arrive, and these."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"layers": cell(4, 3, 2, batch_first=True, bidirectional=True), "head": nn.Linear(6, 2)})
    if fixed:
        fix_gradient_order(model)
    arrived: list[str] = []
    for name, weight in model.named_parameters():
        weight.register_post_accumulate_grad_hook(lambda _, name=name: arrived.append(name))
    rows = torch.linspace(-1, 1, len(lengths) * lengths[0] * 4).view(len(lengths), lengths[0], 4)
    packed = pack_padded_sequence(rows, torch.tensor(lengths), batch_first=True)
    torch.autograd.backward(model["head"](model["layers"](packed)[0].data).pow(2).sum())
    return arrived, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_gradients_arrive_in_one_order_whatever_is_read(cell: type[nn.RNNBase]) -> None:
    assert len({tuple(backward(cell, lengths, fixed=True)[0]) for lengths in ROWS}) == 1


def test_without_that_they_do_not() -> None:
    assert len({tuple(backward(nn.LSTM, lengths, fixed=False)[0]) for lengths in ROWS}) > 1


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_the_gradients_are_the_same(cell: type[nn.RNNBase]) -> None:
    for lengths in ROWS:
        ours, plain = (backward(cell, lengths, fixed=fixed)[1] for fixed in (True, False))
        assert ours.keys() == plain.keys()
        assert all(torch.equal(ours[name], gradient) for name, gradient in plain.items())
