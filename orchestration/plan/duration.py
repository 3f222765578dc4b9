"""How long will the teacher take? Two rough formulas, meant to tell minutes from days.

CPU: measured rates of one model, scaled by cores and by parameters.

Signals of a model with a head are read in passes over whole texts, whose arithmetic is that of the blocks' weights.

GPU: reading prompts and scoring is bound by arithmetic, 2 FLOP a parameter and token at an assumed share of the peak.
Writing is done in steps of one token for every running sequence; a step reads all weights once and every sequence's
keys and values (at half of max_model_len) at an assumed share of the memory bandwidth, and then does the arithmetic of
its tokens; nothing is taken to overlap. A tensor-parallel group counts as one GPU that many times as fast. Engines work
side by side; their start-up is added once.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.architecture import TextModel
from configs.models import Device
from configs.schema import Dtype, EngineSettings
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.memory import DTYPE_BYTES, QUANTIZED_BYTES, kv_bytes

CPU_REFERENCE_PARAMETERS = 134_515_008
"""SmolLM2-135M, the model whose rates were measured, in bfloat16 on 2 cores with AVX512-BF16, 64 sequences at once."""

CPU_REFERENCE_CORES = 2
CPU_WRITE_RATE = 230.0
"""Tokens a second written with 64 log-probabilities each (215 to 245 measured)."""

CPU_READ_RATE = 550.0
"""Tokens a second scored with 64 log-probabilities each; a bare prefill reached 900."""

CPU_TRUSTED_SPEEDUP = 10.0
"""Very small models are not faster than this over the reference: scheduling, not arithmetic, takes their time."""

SIGNAL_REFERENCE_WEIGHTS = 10_616_832
"""Of the blocks of MiniLM (6 x 384, MLPs of 1,536), whose rate was measured, in float32 on 2 cores with AVX-512."""

SIGNAL_READ_RATE = 6000.0
"""Tokens a second of texts of 8 to 128 tokens, each in one pass whatever is asked of it (6,200 to 6,900 measured)."""

SIGNAL_START_SECONDS = 20.0
"""Assumed: a worker of Ray, torch and transformers, small weights, and the plain passes of the check."""

AUDIT_READ_RATE = 1100.0
"""Tokens a second and core that transformers read, of the same model on the same processor (1,120 measured on one)."""

AUDIT_WRITE_RATE = 140.0
"""Tokens a second and core that transformers write greedily, some prompts at a time (143 measured on one)."""

AUDIT_GPU_TOGETHER = 8
"""Answers that are written at a time, about: prompts of one length share a batch."""

GPU_FLOPS_FLOAT32 = 19.5e12
"""Float32 peak of an A100 (data sheet)."""

GPU_FLOPS = 312e12
"""Dense bfloat16 peak of an A100 (data sheet), the slowest GPU with 80 GB."""

GPU_BANDWIDTH = 2.0e12
"""Memory bytes a second of an A100 with 80 GB (data sheet)."""

COMPUTE_SHARE = 0.4
"""Assumed share of the peak that a prefill reaches."""

BANDWIDTH_SHARE = 0.6
"""Assumed share of the bandwidth that a decoding step reaches."""

START_SECONDS = 60.0
"""An engine is up after 50 to 70 s; a large one on GPUs takes longer."""


@dataclass(frozen=True, slots=True)
class TeacherWork:
    """Tokens that a fill asks of the teacher: read (prompts and scored sequences) and written."""

    read_tokens: int
    written_tokens: int


@dataclass(frozen=True, slots=True)
class FillTime:
    """Estimated wall time of a fill. `assumed` is true when the shape came from the YAML alone."""

    seconds: float
    gpus: int
    read_rate: float
    write_rate: float
    assumed: bool

    @property
    def gpu_hours(self) -> float:
        """GPUs of all engines times hours; 0 on CPUs."""
        return self.seconds * self.gpus / 3600


def expected_seconds(
    teacher: PlannedShape,
    *,
    work: TeacherWork,
    settings: EngineSettings,
    accelerator: Device,
    dtype: str,
    quantization: str | None = None,
) -> FillTime:
    """Estimate the wall time of a fill; nothing to do takes no time, because no engine starts.

    The rates are in tokens a second over all engines.
    """
    if accelerator == "gpu":
        read, write = _gpu_rates(teacher, settings=settings, dtype=dtype, quantization=quantization)
    else:
        speed = settings.cpus / CPU_REFERENCE_CORES * CPU_REFERENCE_PARAMETERS / teacher.shape.parameters
        speed = min(speed, CPU_TRUSTED_SPEEDUP)
        read, write = CPU_READ_RATE * speed, CPU_WRITE_RATE * speed
    read, write = read * settings.count, write * settings.count
    asked = work.read_tokens + work.written_tokens
    seconds = START_SECONDS + work.read_tokens / read + work.written_tokens / write if asked else 0.0
    gpus = settings.count * settings.ranks if accelerator == "gpu" else 0
    return FillTime(seconds, gpus, read, write, teacher.assumed)


def expected_signal_seconds(
    model: TextModel, *, tokens: int, settings: EngineSettings, accelerator: Device, dtype: Dtype
) -> FillTime:
    """Estimate the wall time of reading so many tokens for their signals; nothing to read takes no time."""
    if accelerator == "gpu":
        peak = GPU_FLOPS_FLOAT32 if dtype == "float32" else GPU_FLOPS
        rate = peak * COMPUTE_SHARE / (2 * model.block_weights)
    else:
        speed = settings.cpus / CPU_REFERENCE_CORES * SIGNAL_REFERENCE_WEIGHTS / model.block_weights
        rate = SIGNAL_READ_RATE * min(speed, CPU_TRUSTED_SPEEDUP)
    rate *= settings.count
    seconds = SIGNAL_START_SECONDS + tokens / rate if tokens else 0.0
    return FillTime(seconds, settings.count if accelerator == "gpu" else 0, rate, write_rate=0.0, assumed=False)


def audit_seconds(
    model: PlannedShape, *, read_tokens: float, written_tokens: float, accelerator: Device, cpus: int
) -> float:
    """About how long models as large as this one take to read and write so many tokens for audits, one by one."""
    parameters = model.shape.parameters
    if accelerator == "gpu":
        read = GPU_FLOPS * COMPUTE_SHARE / (2 * parameters)
        write = AUDIT_GPU_TOGETHER * GPU_BANDWIDTH * BANDWIDTH_SHARE / (2 * parameters)
    else:
        speed = cpus * min(CPU_REFERENCE_PARAMETERS / parameters, CPU_TRUSTED_SPEEDUP)
        read, write = AUDIT_READ_RATE * speed, AUDIT_WRITE_RATE * speed
    return read_tokens / read + written_tokens / write


def _gpu_rates(
    teacher: PlannedShape, *, settings: EngineSettings, dtype: str, quantization: str | None
) -> tuple[float, float]:
    """Tokens a second of one engine, reading and writing.

    The stages of a pipeline compute at once, each for another part of the sequences. So a token is written no sooner
    for it than the weights of all stages are read, one after the other.
    """
    shape, split, sequences = teacher.shape, settings.tensor_parallel, settings.max_sequences
    read = GPU_FLOPS * COMPUTE_SHARE * settings.ranks / (2 * shape.parameters)
    weights = shape.parameters * QUANTIZED_BYTES.get(quantization or "", DTYPE_BYTES[dtype]) / split
    cached = sequences * settings.max_model_len / 2 * kv_bytes(shape, split=split, dtype=dtype)
    cached /= settings.pipeline_parallel
    step = (weights + cached) / (GPU_BANDWIDTH * BANDWIDTH_SHARE) + sequences / read
    return read, sequences / step
