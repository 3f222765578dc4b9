"""The GPU kernels, run on the CPU by Triton's interpreter in a process of its own: it is chosen before the import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROGRAM = """
import torch
from student_train.losses import kernels

generator = torch.Generator().manual_seed(0)
for dtype, close in ((torch.bfloat16, 1e-2), (torch.float16, 1e-3), (torch.float32, 1e-6)):
    # More than two blocks and a rest; one row is empty, one starts with more than a block of -inf.
    logits = (3 * torch.randn(4, 5001, generator=generator)).to(dtype)
    logits[1] = float("-inf")
    logits[2, :3000] = float("-inf")
    best, total = kernels.row_sums(logits)
    expected = logits.float().amax(dim=1)
    shift = expected.masked_fill(expected == float("-inf"), 0.0)
    powers = (logits.float() - shift[:, None]).exp()
    assert torch.equal(best, expected)
    torch.testing.assert_close(total, powers.sum(dim=1), rtol=1e-5, atol=0)
    share = torch.tensor([0.5, 0.5, -2.0, 0.0])
    kernels.spread(logits, shift, share)
    torch.testing.assert_close(logits.float(), powers * share[:, None], rtol=close, atol=1e-6)

logits = torch.randn(2, 3000, generator=generator).bfloat16()
logits[1, 2500] = float("nan")
assert torch.isfinite(kernels.row_sums(logits)[1]).tolist() == [True, False]
"""


def test_sums_and_gradient_are_those_of_torch() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    root = Path(__file__).resolve().parents[4]
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
