"""A process that trains stage after stage begins each of them as if it had just been started.

Every stage seeds its random numbers itself, and runs in a thread of its own: what torch keeps by thread (whether
gradients are recorded, autocast, the default device) is new with it. What torch and the system keep by process is put
back here.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from student_train.worker_group import forget_peak_memory, give_freed_memory_back


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What decides in a process how torch computes, apart from the job: taken once, before the first stage."""

    environment: dict[str, str]
    threads: int
    dtype: torch.dtype
    deterministic: bool
    deterministic_warns: bool
    matmul_precision: str
    cudnn: tuple[bool, bool, bool]
    linear: Callable[..., torch.Tensor]

    @classmethod
    def now(cls) -> ProcessSettings:
        """The present ones."""
        cudnn = torch.backends.cudnn
        return cls(
            environment=dict(os.environ),
            threads=torch.get_num_threads(),
            dtype=torch.get_default_dtype(),
            deterministic=torch.are_deterministic_algorithms_enabled(),
            deterministic_warns=torch.is_deterministic_algorithms_warn_only_enabled(),
            matmul_precision=torch.get_float32_matmul_precision(),
            cudnn=(cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
            linear=torch.nn.functional.linear,
        )

    def restore(self) -> None:
        """Go back to them, in the thread that will train."""
        for name in os.environ.keys() - self.environment.keys():
            del os.environ[name]
        os.environ.update(self.environment)
        # Also where nothing has changed: it is what tells a new thread, and so the first stage is told like the others.
        torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.dtype)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.deterministic_warns)
        torch.set_float32_matmul_precision(self.matmul_precision)
        cudnn = torch.backends.cudnn
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = self.cudnn
        # DeepSpeed puts another one in its place for ZeRO stage 3 and leaves it there; with a bias it rounds otherwise.
        torch.nn.functional.linear = self.linear


def free_memory() -> None:
    """Give back what a stage that has ended held: for whoever shares the machine while the next one is waited for."""
    # Engine, optimiser and hooks hold each other in circles.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_freed_memory_back()
    forget_peak_memory()
