"""What a part of an experiment holds on one GPU, or in one process on CPUs: arithmetic from a shape, every term shown.

Engines: weights and the KV cache are split over a tensor-parallel group; the logits are not, because every rank of
vLLM's runner gathers all columns and keeps them in float32 for a whole scheduled chunk, outside its memory profile.
The stages of a pipeline hold whole layers, the first also the embedding, the last the head (both, where they are one
matrix) and the logits; what is planned is the stage that holds most.

Training: ZeRO stage 1 splits the optimiser's state over the workers, 2 also the gradients, 3 also the weights
(Rajbhandari et al., arXiv 1910.02054). In bfloat16 a parameter costs 2 bytes of weight, 4 of gradient (accumulated in
float32) and 12 of optimiser state (float32 master copy, two Adam moments); in float32 4, 4 and 12, or 8 at stage 0,
which keeps no second copy.

Biases, norms' copies and key-value heads repeated over a wide tensor-parallel group are below one percent and left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from configs.schema import EngineSettings, ModelShape, RuntimeConfig, TrainingSettings
from configs.stages import StageConfig
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.hardware import GIB

USABLE = 0.95
"""Share of a GPU's nominal memory that may be planned with; the driver and fragmentation keep the rest."""

RUNTIME_GIB = 3.0
"""CUDA context, communicators, captured graphs and the libraries themselves, of one process. An assumption."""

HEAD_CHUNK_BYTES = 256 * 2**20
"""Float32 logits of one chunk of the fused loss (`student_train.losses.head.CPU_CHUNK_BYTES`). On a GPU the chunk
follows the memory that is there: more where there is much, less where little is left."""

HEAD_CHUNKS = 3
"""Tables of a chunk's size that live at once: float32 logits, and logits and gradient in the training dtype."""

BUCKET_ELEMENTS = 50_000_000
"""Elements of one of ZeRO's two communication buckets. `student_train.training.deepspeed_engine` sets it."""

DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}

QUANTIZED_BYTES = {"fp8": 1.0, "awq": 0.56, "gptq": 0.56}
"""Bytes a weight, the scales of groups of 128 four-bit weights included; any other method counts as unquantised."""


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """One term: its name, its bytes on one GPU, and how they come about."""

    name: str
    size_bytes: float
    arithmetic: str


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """All terms of one part of an experiment, on one GPU (or in one process, on CPUs).

    `assumed` is true when the shape was read from the YAML and not from the model's files. `cure` names the keys that
    make it smaller. `offloaded` lies in the memory of the machine and not on the GPU.
    """

    label: str
    items: tuple[MemoryItem, ...]
    assumed: bool
    cure: str
    offloaded: tuple[MemoryItem, ...] = ()

    @property
    def total_bytes(self) -> float:
        """Sum of the terms."""
        return sum(item.size_bytes for item in self.items)

    def fits(self, *, memory_gib: float) -> bool:
        """Whether a GPU of this nominal size has room."""
        return self.total_bytes <= memory_gib * GIB * USABLE


def engine_memory(
    model: PlannedShape,
    *,
    label: str,
    key: str,
    settings: EngineSettings,
    dtype: str,
    quantization: str | None = None,
) -> MemoryFit:
    """What one GPU of an inference engine holds; `key` is the engine's block, e.g. `runtime.teacher_engine`."""
    shape, split, stages = model.shape, settings.tensor_parallel, settings.pipeline_parallel
    wide = DTYPE_BYTES[dtype]
    weight = QUANTIZED_BYTES.get(quantization or "", wide)
    tokens = settings.max_batched_tokens
    logits = 4.0 * tokens * shape.vocab
    parameters = stage_parameters(shape, stages=stages)
    held_by = [count * weight / split + (logits if at == stages - 1 else 0.0) for at, count in enumerate(parameters)]
    largest = max(range(stages), key=held_by.__getitem__)
    of = "" if stages == 1 else f" of stage {largest + 1} of pipeline_parallel {stages}"
    per_token = 4 * shape.hidden + 3 * shape.mlp / split
    held = kv_tokens(shape, settings=settings, dtype=dtype)
    return MemoryFit(
        label,
        (
            MemoryItem(
                "weights",
                parameters[largest] * weight / split,
                f"{count_in_words(parameters[largest])}{of} x {weight:g} B / tensor_parallel {split}",
            ),
            MemoryItem(
                "KV cache",
                settings.kv_cache_gib * GIB,
                f"kv_cache_gib {settings.kv_cache_gib:g}: {count_in_words(held)} tokens, "
                f"{held // settings.max_model_len} sequences of max_model_len {settings.max_model_len}",
            ),
            *(
                [MemoryItem("logits", logits, f"max_batched_tokens {tokens} x {shape.vocab} x 4 B")]
                if largest == stages - 1
                else []
            ),
            MemoryItem(
                "activations", wide * tokens * per_token, f"max_batched_tokens {tokens} x {per_token:.0f} x {wide:g} B"
            ),
            _runtime(),
        ),
        model.assumed,
        f"raise {key}.tensor_parallel={split}{_or_stages(key, stages)}, or lower its "
        f"kv_cache_gib={settings.kv_cache_gib:g} or max_batched_tokens={tokens}",
    )


def kv_tokens(shape: ModelShape, *, settings: EngineSettings, dtype: str) -> int:
    """Tokens that the KV cache of one engine holds; a head that cannot be split is kept whole by every GPU.

    Every stage of a pipeline keeps those of its own layers, and vLLM gives all of them as many tokens as the stage with
    the most layers has room for.
    """
    whole = kv_bytes(shape, split=settings.tensor_parallel, dtype=dtype)
    share = max(stage_layers(shape.layers, stages=settings.pipeline_parallel)) / shape.layers
    return int(settings.kv_cache_gib * GIB / (whole * share))


def stage_layers(layers: int, *, stages: int) -> tuple[int, ...]:
    """Layers of each stage of a pipeline, as vLLM deals them (`get_pp_indices`, 0.32).

    What is left over goes to the stages before the last, from the back: the last one has the head already.
    """
    least, more = divmod(layers, stages)
    return tuple(least + (stages - 1 - more <= at < stages - 1) for at in range(stages))


def stage_parameters(shape: ModelShape, *, stages: int) -> tuple[int, ...]:
    """Parameters of each stage of a pipeline: its layers, the embedding in the first, norm and head in the last."""
    if stages == 1:
        return (shape.parameters,)
    matrix, layer = shape.vocab * shape.hidden, _layer_parameters(shape)
    return tuple(
        count * layer + (matrix if at == 0 else 0) + (matrix + shape.hidden if at == stages - 1 else 0)
        for at, count in enumerate(stage_layers(shape.layers, stages=stages))
    )


def kv_bytes(shape: ModelShape, *, split: int, dtype: str) -> float:
    """Bytes of one token's keys and values in all layers, on one GPU of a tensor-parallel group of `split`."""
    heads = math.ceil(shape.kv_heads / split)
    return 2 * shape.layers * heads * shape.head_size * DTYPE_BYTES[dtype]


def training_memory(
    model: PlannedShape,
    *,
    label: str,
    settings: TrainingSettings,
    stage: StageConfig,
    beside: tuple[MemoryItem, ...] = (),
) -> MemoryFit:
    """What one GPU of the training worker group holds; what is offloaded lies in the memory of its machine.

    `beside` is what lies there too, as a teacher that reads beside the student.
    """
    shape, world = model.shape, settings.workers
    tokens = settings.micro_batch_tokens
    per_token = activation_bytes(shape, dtype=stage.dtype, recomputed=settings.gradient_checkpointing)
    head = HEAD_CHUNKS * HEAD_CHUNK_BYTES + 4.0 * shape.vocab * shape.hidden
    largest = max(_layer_parameters(shape), shape.vocab * shape.hidden)

    def states(*, offloaded: bool) -> Iterator[MemoryItem]:
        return state_memory(
            shape.parameters, largest=largest, settings=settings, dtype=stage.dtype, offloaded=offloaded
        )

    items = [
        *states(offloaded=False),
        MemoryItem("activations", float(tokens * per_token), f"micro_batch_tokens {tokens} x {per_token:,} B"),
        MemoryItem("head", head, f"{HEAD_CHUNKS} x {HEAD_CHUNK_BYTES:,} B + {shape.vocab} x {shape.hidden} x 4 B"),
        *beside,
        _runtime(),
    ]
    grow = f"raise zero_stage={settings.zero_stage} or workers" if settings.zero_stage < 3 else "raise workers"
    spare = "" if settings.gradient_checkpointing else ", set gradient_checkpointing: true"
    cure = f"in runtime.training {grow}={world}{spare}, or lower micro_batch_tokens={tokens}"
    return MemoryFit(label, tuple(items), model.assumed, cure, tuple(states(offloaded=True)))


def shared_memory(
    training: MemoryFit, *, teacher: MemoryFit | None, student: MemoryFit, label: str, runtime: RuntimeConfig
) -> MemoryFit:
    """What a GPU holds on which a worker, a teacher's and a student's engine take turns, at the worse of two times.

    A teacher behind a door (None) has no engine there.

    While the engines write, the worker keeps everything except what a backward pass needs, because it measures the
    held-out split when a stage begins. While it trains, they have moved their weights to the memory of the machine and
    dropped their KV blocks.
    """
    engines = [student] if teacher is None else [teacher, student]
    spare = teacher is None or runtime.teacher_engine.count < runtime.training.workers
    if spare and runtime.student_engine.count > 1:
        # A second student's engine may lie where there is none of the teacher's (`colocation.GPU_SHARES`).
        engines = [max([teacher or student, student], key=lambda fit: fit.total_bytes), student]
    kept = [item for item in training.items if item.name != "activations"]
    names = " + ".join(f"{fit.label} {fit.total_bytes / GIB:.2f}" for fit in engines)
    writing = [*kept, MemoryItem("engines", sum(fit.total_bytes for fit in engines), f"at work: {names} GiB")]
    count = len(engines)
    asleep = MemoryItem("engines", count * RUNTIME_GIB * GIB, f"asleep: {count} x {RUNTIME_GIB:g} GiB, an assumption")
    items = max(writing, [*training.items, asleep], key=lambda items: sum(item.size_bytes for item in items))
    roles = {"teacher_engine": runtime.teacher_engine, "student_engine": runtime.student_engine}
    lower = " or ".join(
        f"runtime.{role}.kv_cache_gib={engine.kv_cache_gib:g}"
        for role, engine in roles.items()
        if teacher is not None or role != "teacher_engine"
    )
    cure = f"lower {lower}, {training.cure}, or set runtime.colocate: false"
    assumed = training.assumed or (teacher is not None and teacher.assumed)
    return MemoryFit(label, tuple(items), assumed, cure)


def state_memory(
    count: int, *, largest: int, settings: TrainingSettings, dtype: str, offloaded: bool, trained: int | None = None
) -> Iterator[MemoryItem]:
    """Weights, gradients and optimiser of `count` parameters, split as the settings say: on the GPU, or offloaded.

    `largest` is the largest number of parameters that are gathered at once, `trained` how many learn (None: all).
    """
    zero, world, wide = settings.zero_stage, settings.workers, DTYPE_BYTES[dtype]
    learning = count if trained is None else trained
    if (settings.offload == "all") is offloaded:
        yield MemoryItem("weights", *_share(count, wide, world=world, is_split=zero >= 3))
    if not offloaded:
        yield MemoryItem("gradients", *_share(learning, 4.0, world=world, is_split=zero >= 2))
    if (settings.offload != "none") is offloaded:
        state = 8 if dtype == "float32" and zero == 0 else 12
        yield MemoryItem("optimiser", *_share(learning, state, world=world, is_split=zero >= 1))
    if offloaded:
        return
    if zero >= 3:
        yield MemoryItem("gathered", 2 * largest * wide, f"2 layers in flight x {count_in_words(largest)} x {wide:g} B")
    if zero >= 1:
        bucket = min(BUCKET_ELEMENTS, count)
        yield MemoryItem("buckets", 2 * bucket * 4.0, f"2 x {count_in_words(bucket)} x 4 B")


def activation_bytes(shape: ModelShape, *, dtype: str, recomputed: bool = False) -> int:
    """Bytes that one token leaves behind for the backward pass.

    A layer keeps, in the training dtype, eight tensors of the hidden size (residuals, norms' outputs, attention's
    output and projection), queries, keys and values before and after the rotation, and four of the MLP's width; and
    two float32 copies of the hidden state, from the norms. With recomputation only one layer does at a time, and the
    others keep their input.
    """
    wide = DTYPE_BYTES[dtype]
    heads = (shape.heads + 2 * shape.kv_heads) * shape.head_size
    layer = wide * (8 * shape.hidden + 2 * heads + 4 * shape.mlp) + 8 * shape.hidden
    return int(shape.layers * wide * shape.hidden + layer) if recomputed else int(shape.layers * layer)


def _share(count: int, per_parameter: float, *, world: int, is_split: bool) -> tuple[float, str]:
    """Bytes of one worker, and the arithmetic."""
    text = f"{count_in_words(count)} x {per_parameter:g} B" + (f" / {world} workers" if is_split else "")
    return count * per_parameter / (world if is_split else 1), text


def _layer_parameters(shape: ModelShape) -> int:
    embeddings = shape.vocab * shape.hidden * (1 if shape.tied_embeddings else 2)
    return (shape.parameters - embeddings - shape.hidden) // shape.layers


def _or_stages(key: str, stages: int) -> str:
    """The other way to split an engine, where it can be (`configs.runtime`)."""
    return f" or pipeline_parallel={stages}" if key == "runtime.teacher_engine" else ""


def _runtime() -> MemoryItem:
    return MemoryItem("runtime", RUNTIME_GIB * GIB, f"{RUNTIME_GIB:g} GiB, an assumption")


def count_in_words(number: float) -> str:
    """A large number, short: 12_345_678 is 12.35M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.4g}{unit}"
    return f"{number:.0f}"
