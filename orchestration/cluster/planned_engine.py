"""What an engine of an experiment's model has to know before it starts, with the memory that was planned for it."""

from __future__ import annotations

from pathlib import Path

from cache import TeacherIdentity
from configs.models import Device
from configs.schema import EngineSettings
from orchestration.cluster.engines import EngineSpec
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.host_memory import engine_on_host
from orchestration.plan.memory import engine_memory

STUDENT_LOGPROBS = 1
"""Student engines only write answers; vLLM wants a positive limit."""


def engine_spec(
    files: ModelFiles,
    identity: TeacherIdentity,
    *,
    settings: EngineSettings,
    k: int,
    accelerator: Device,
    log_dir: Path,
) -> EngineSpec:
    """What an engine of a model needs to know; with k = 0 the model only writes."""
    key = "runtime.teacher_engine" if k else "runtime.student_engine"
    shape = PlannedShape(files.label, files.shape, assumed=False)
    memory = engine_memory(
        shape,
        label="engine",
        key=key,
        settings=settings,
        dtype=identity.dtype,
        quantization=identity.quantization,
    )
    return EngineSpec(
        model_dir=files.directory.resolve(),
        identity=identity,
        vocab=files.vocab,
        dtype=identity.dtype,
        quantization=identity.quantization,
        settings=settings,
        max_logprobs=max(k, STUDENT_LOGPROBS),
        accelerator=accelerator,
        log_dir=log_dir,
        memory=engine_on_host(memory, key=key, settings=settings) if accelerator == "cpu" else memory,
        key=key,
    )
