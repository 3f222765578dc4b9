"""The only module that knows DeepSpeed.

The DeepSpeed config is generated from the stage and the training settings. The size of a batch is decided elsewhere.

Loss normalisation (docs/decisions/0004-loss-normalisation.md): micro-batches return *summed* losses. DeepSpeed averages
gradients over ranks, so each is scaled by world_size / (response tokens, or decisions, of the whole optimiser step),
and DeepSpeed's own division by accumulation steps is switched off. The number of micro-batches differs from step to
step, so the boundary is set by hand before each backward pass; that also makes ZeRO-2 keep what it has already reduced.

Non-finite numbers: a loss that is not finite is multiplied by NaN before its backward pass. So, whatever went wrong,
the gradient norm that all ranks share is not finite either, and a single check of that norm drops the step everywhere.
ZeRO has that check; for stage 0, which has none, it is here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, Self, runtime_checkable

import deepspeed
import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from jaxtyping import Float
from torch import Tensor, nn

from configs.errors import TrainingError
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from configs.task_stages import TaskStageConfig
from student_train.feed.microbatch import MicroBatch
from student_train.losses.metrics import METRICS
from student_train.training.gradient_order import fix_gradient_order
from student_train.training.shares import ShareFile
from student_train.training.snapshots import copied, free_to_each, has_room, size_of
from student_train.worker_group import WorkerGroup

ADAM_BETAS = (0.9, 0.95)
"""The second is lower than torch's default: runs of a few hundred steps never fill an average over a thousand."""

ADAM_EPS = 1e-8
STOP_LOOK_EVERY = 8
"""Micro-batches between two checks for a request to stop: each check makes the host wait for the device."""

_TAG = "state"
_BUCKET = 50_000_000


@runtime_checkable
class Batch(Protocol):
    """A micro-batch: what one forward and backward pass of one process works on."""

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        ...


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One optimiser step: metric sums over all ranks, the norm of the mean gradient, and whether it was dropped."""

    sums: tuple[float, ...]
    grad_norm: float
    skipped: bool


class DeepSpeedEngine:
    """A student under DeepSpeed. Every method is called by all processes of the worker group together."""

    def __init__(
        self,
        module: nn.Module,
        *,
        stage: StageConfig | TaskStageConfig,
        settings: TrainingSettings,
        group: WorkerGroup,
    ) -> None:
        # DeepSpeed probes (and builds, for a minute) C++ extensions that plain torch optimisers do not use.
        deepspeed.ops.__dict__["__compatible_ops__"] = {}
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        self._group = group
        self._zero_stage = settings.zero_stage
        self._engine: Any
        self._engine, _, _, _ = deepspeed.initialize(
            model=module,
            model_parameters=_parameter_groups(module, weight_decay=stage.weight_decay),
            config=deepspeed_config(stage, settings=settings),
            dist_init_required=False,
        )
        self._writer = Snapshots(self._engine._config)
        self._engine.checkpoint_engine = self._writer
        # Stage 0 sums weight by weight, and stage 3 sorts its buckets.
        if settings.zero_stage in (1, 2):
            fix_gradient_order(module)

    def step(
        self,
        batches: Sequence[Batch],
        *,
        places: int,
        learning_rate: float,
        stop: Callable[[], bool],
    ) -> StepOutcome | None:
        """One optimiser step over this process's micro-batches, as many on every process.

        `places` is the number of response tokens (without plain text), or of decisions, of the step over all processes.
        A long step asks now and then whether to `stop` (the answer is the same on every process). If so it returns
        None: weights and optimiser are as before, but the engine is good for saving only, because part of the gradients
        is in it.
        """
        engine = self._engine
        engine.train()
        scale = self._group.world_size / places
        sums = torch.zeros(len(METRICS), dtype=torch.float64, device=self._group.device)
        for index, batch in enumerate(batches):
            if index and index % STOP_LOOK_EVERY == 0 and stop():
                return None
            engine.set_gradient_accumulation_boundary(index == len(batches) - 1)
            loss, metrics = engine(batch.to(self._group.device))
            sums += metrics
            # No `if`: asking for the value would make the host wait for the device in every micro-batch.
            poison = torch.where(torch.isfinite(loss.detach()), scale, math.nan)
            engine.backward(loss * poison, scale_wrt_gas=False)
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate
        totals = self._group.total(sums)
        norm, skipped = self._apply()
        # Other metrics may rightly be infinite, such as a reverse KL where the teacher gives a token no probability.
        losses = totals[[METRICS.index("loss"), METRICS.index("pretrain")]]
        if not skipped and not bool(torch.isfinite(losses).all()):
            raise TrainingError(
                "a loss was not finite although its gradient norm was, so nothing was saved: lower "
                "learning_rate or set dtype: float32"
            )
        return StepOutcome(tuple(totals.tolist()), norm, skipped)

    @torch.no_grad()
    def evaluate(self, batches: Sequence[Batch]) -> Tensor:
        """Metric sums over these micro-batches of this process (not summed over processes)."""
        self._engine.eval()
        sums = torch.zeros(len(METRICS), dtype=torch.float64, device=self._group.device)
        for batch in batches:
            _, metrics = self._engine.module(batch.to(self._group.device))
            sums += metrics
        return sums

    @torch.no_grad()
    def logprobs(self, batch: MicroBatch) -> Float[Tensor, " N"]:
        """What the present weights give each response token of a micro-batch, in nats."""
        self._engine.eval()
        logprobs: Tensor
        logprobs, _ = self._engine.module(batch.to(self._group.device), scores=True)
        return logprobs

    def save(self, folder: Path) -> list[ShareFile]:
        """This process's share of weights and optimiser state, as they are now, to be written below `folder`."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)
        return self._writer.taken()

    def load(self, folder: Path) -> None:
        """Read what `save` wrote with the same number of processes and the same ZeRO stage.

        Raises:
            TrainingError: DeepSpeed finds nothing there.
        """
        path, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        if path is None:
            raise TrainingError(f"{folder} holds no DeepSpeed state: remove it and start the stage again")

    def load_joined(self, folder: Path) -> None:
        """Read what `join_shards` wrote, with any number of processes.

        Raises:
            TrainingError: DeepSpeed finds nothing there.
        """
        decays = [group["weight_decay"] for group in self._engine.optimizer.param_groups]
        self._engine._config.load_universal_checkpoint = True
        self.load(folder)
        self._engine._config.load_universal_checkpoint = False
        # Under stage 3, DeepSpeed 0.19.8 gives every group the settings of the first one here, so norms would decay
        # from now on; and it gives all groups one and the same step counter, which each of them would then advance.
        for group, decay in zip(self._engine.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        for state in self._engine.optimizer.optimizer.state.values():
            state["step"] = state["step"].clone()

    def whole_weights(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The whole weights of `model`, which was trained, on the CPU of the leader; None elsewhere."""
        weights: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._zero_stage == 3):
                if self._group.leads:
                    weights[name] = parameter.detach().to("cpu", copy=True)
        return weights if self._group.leads else None

    def close(self) -> None:
        """Free the engine's hooks and buffers."""
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
            if self._zero_stage < 3:
                # DeepSpeed 0.19.8 clears these sums itself, but not when the optimiser is offloaded and the model is in
                # bfloat16: the NaN would stay in them, and every later step would be dropped too.
                sums = getattr(engine.optimizer, "averaged_gradients", {})
                sums.update(dict.fromkeys(sums))
            return math.nan, True
        return float(engine.get_global_grad_norm()), False


class Snapshots(TorchCheckpointEngine):  # type: ignore[misc]  # DeepSpeed ships no types
    """What DeepSpeed writes its checkpoints with. It copies what it is given, to be written later, if there is room."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._taken: list[ShareFile] = []

    def save(self, state_dict: Any, path: str) -> None:
        """See `CheckpointEngine.save`."""
        place = Path(path)
        if has_room(size_of(state_dict), free=free_to_each()):
            state = copied(state_dict)
            self._taken.append(ShareFile(place, lambda path: _write_state(path, state)))
        else:
            _write_state(place, state_dict)
            self._taken.append(ShareFile(place))

    def taken(self) -> list[ShareFile]:
        """What was saved since the last call."""
        taken, self._taken = self._taken, []
        return taken


def _write_state(path: Path, state: Any) -> None:
    # The manifest has a better digest of the file: without a CRC of every tensor, writing takes half the time.
    usual = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, path)
    finally:
        torch.serialization.set_crc32_options(usual)


def join_shards(source: Path, target: Path) -> None:
    """Turn what `save` wrote (stage 1 to 3) into DeepSpeed's universal form: one whole array a weight and moment.

    It needs as much disk space again. To be called by one process; `source` is left as it is.
    """
    from deepspeed.checkpoint import ds_to_universal

    arguments = SimpleNamespace(
        input_folder=str(source / _TAG),
        output_folder=str(target / _TAG),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    # It reports with print and progress bars.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(arguments)


def deepspeed_config(stage: StageConfig | TaskStageConfig, *, settings: TrainingSettings) -> dict[str, Any]:
    """The DeepSpeed config of a stage."""
    bf16 = stage.dtype == "bfloat16"
    config: dict[str, Any] = {
        # DeepSpeed's own bookkeeping: real batches are counted in tokens and come from the feed.
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
    # The optimiser is torch's and runs wherever its tensors are, so it needs none of DeepSpeed's C++ for the CPU.
    if settings.offload != "none":
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    if settings.offload == "all":
        config["zero_optimization"]["offload_param"] = {"device": "cpu"}
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
