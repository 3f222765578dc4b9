"""DeepSpeed, and nothing else of the program, lives here.

The DeepSpeed config is generated from the stage and the training settings; a batch size exists once, and not here.

Loss normalisation (docs/decisions/0004-loss-normalisation.md): micro-batches return *summed* losses. DeepSpeed averages
gradients over ranks, so each is scaled by world_size / (response tokens of the whole optimiser step), and DeepSpeed's
own division by accumulation steps is switched off. The number of micro-batches differs from step to step, so the
boundary is set by hand before each backward pass; that also tells ZeRO-2 that what it reduced before still counts.

Non-finite numbers: a loss that is not finite is multiplied by NaN before its backward pass, so that whatever the form
of the failure, the gradient norm that all ranks share is not finite, and the one gate on that norm drops the step
everywhere. ZeRO has that gate. Stage 0 has none; here it gets one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from configs.errors import TrainingError
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from student_train.batching import MicroBatch
from student_train.fused import METRICS
from student_train.gang import Gang

ADAM_BETAS = (0.9, 0.95)
"""The second is lower than torch's default: runs of a few hundred steps never fill an average over a thousand."""

ADAM_EPS = 1e-8
_TAG = "state"
_BUCKET = 50_000_000


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One optimiser step: metric sums over all ranks, the norm of the mean gradient, and whether it was dropped."""

    sums: tuple[float, ...]
    grad_norm: float
    skipped: bool


class DeepSpeedEngine:
    """A student under DeepSpeed. Every method is called by all processes of the gang together."""

    def __init__(self, module: nn.Module, *, stage: StageConfig, settings: TrainingSettings, gang: Gang) -> None:
        # DeepSpeed probes (and builds, for a minute) C++ extensions that plain torch optimisers do not use.
        deepspeed.ops.__dict__["__compatible_ops__"] = {}
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        self._gang = gang
        self._zero_stage = settings.zero_stage
        self._engine: Any
        self._engine, _, _, _ = deepspeed.initialize(
            model=module,
            model_parameters=_parameter_groups(module, weight_decay=stage.weight_decay),
            config=deepspeed_config(stage, settings=settings),
            dist_init_required=False,
        )

    def step(self, batches: Sequence[MicroBatch], *, global_tokens: int, learning_rate: float) -> StepOutcome:
        """One optimiser step over this process's micro-batches, as many on every process.

        `global_tokens` is the number of response tokens of the step over all processes.
        """
        engine = self._engine
        engine.train()
        scale = self._gang.world_size / global_tokens
        sums = torch.zeros(len(METRICS), dtype=torch.float64, device=self._gang.device)
        for index, batch in enumerate(batches):
            engine.set_gradient_accumulation_boundary(index == len(batches) - 1)
            loss, metrics = engine(batch.to(self._gang.device))
            sums += metrics
            poison = torch.where(torch.isfinite(loss.detach()), scale, math.nan)
            engine.backward(loss * poison, scale_wrt_gas=False)
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate
        totals = self._gang.total(sums)
        norm, skipped = self._apply()
        if not skipped and not bool(torch.isfinite(totals).all()):
            raise TrainingError("a loss was not finite but its gradient passed the gate: nothing was saved")
        return StepOutcome(tuple(totals.tolist()), norm, skipped)

    @torch.no_grad()
    def evaluate(self, batches: Sequence[MicroBatch]) -> Tensor:
        """Metric sums over these micro-batches of this process (not summed over processes)."""
        self._engine.eval()
        sums = torch.zeros(len(METRICS), dtype=torch.float64, device=self._gang.device)
        for batch in batches:
            _, metrics = self._engine.module(batch.to(self._gang.device))
            sums += metrics
        return sums

    def save(self, folder: Path) -> None:
        """Write this process's share of weights and optimiser state below `folder`."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, on the same number of processes.

        Raises:
            TrainingError: DeepSpeed finds nothing there.
        """
        path, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        if path is None:
            raise TrainingError(f"{folder} holds no DeepSpeed state: remove it and start the stage again")

    def whole_weights(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The model's weights on the CPU, whole, on the leader; None elsewhere. `model` is what was trained."""
        weights: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._zero_stage == 3):
                if self._gang.leads:
                    weights[name] = parameter.detach().to("cpu", copy=True)
        return weights if self._gang.leads else None

    def close(self) -> None:
        """Let go of the engine's hooks and buffers."""
        self._engine.destroy()

    def _apply(self) -> tuple[float, bool]:
        """Take the optimiser step unless the gradient norm is not finite; the norm and whether it was dropped."""
        engine = self._engine
        if self._zero_stage == 0:
            # Gradients were summed over ranks in the last backward pass: every rank sees the same norm.
            grads = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
            norm = float(torch.nn.utils.get_total_norm(grads))
            if not math.isfinite(norm):
                engine.zero_grad()
                return norm, True
            engine.step()
            return norm, False
        engine.step()
        if engine.optimizer.overflow:
            return math.nan, True
        return float(engine.get_global_grad_norm()), False


def deepspeed_config(stage: StageConfig, *, settings: TrainingSettings) -> dict[str, Any]:
    """The DeepSpeed config of a stage."""
    bf16 = stage.dtype == "bfloat16"
    config: dict[str, Any] = {
        # Bookkeeping of DeepSpeed alone: real batches are counted in tokens and arrive ready made.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": stage.gradient_clip,
        "bf16": {"enabled": bf16},
        "steps_per_print": 2**31,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "torch_adam": True,
                # One pass over memory instead of ten.
                "fused": True,
                "lr": stage.learning_rate,
                "betas": list(ADAM_BETAS),
                "eps": ADAM_EPS,
                "weight_decay": stage.weight_decay,
            },
        },
        "zero_optimization": {
            "stage": settings.zero_stage,
            "overlap_comm": False,
            "reduce_bucket_size": _BUCKET,
            "allgather_bucket_size": _BUCKET,
        },
    }
    if bf16 and settings.zero_stage > 0:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def _parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors (norms, biases) never do."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
