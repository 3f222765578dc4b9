from __future__ import annotations

import pytest
import torch

from student_train.losses import passes
from student_train.losses.passes import row_sums, spread, stays_low

INF = float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_and_gradient(dtype: torch.dtype) -> None:
    table = torch.tensor([[0.0, 1.0, -INF], [2.0, 2.0, 2.0], [-INF, -INF, -INF]], dtype=dtype)
    best, shift, total = row_sums(table)
    assert best.tolist() == [1.0, 2.0, -INF]
    assert shift.tolist() == [1.0, 2.0, 0.0]
    small = torch.tensor(-1.0, dtype=dtype).exp()
    assert total.tolist() == [float(1 + small), 3.0, 0.0]
    spread(table, shift=shift, share=torch.tensor([2.0, -1.0, 5.0], dtype=dtype))
    assert table.tolist() == [[float(2 * small), 2.0, 0.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0]]


def test_a_cpu_takes_float32() -> None:
    assert not stays_low(torch.ones(2, 3).bfloat16(), softcap=None)


def test_where_kernels_cannot_be_built_a_warning_says_why(caplog: pytest.LogCaptureFixture) -> None:
    assert not passes._kernels_work(torch.device("cpu"))
    assert "losses go without their GPU kernels" in caplog.messages[-1]
