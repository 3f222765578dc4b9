"""What a teacher with a task head, and a worker that trains a student of a task, hold: arithmetic, every term shown.

As in `orchestration.plan.memory`, with sizes of encoders and small networks in place of decoders. Biases, norms and
heads are below one percent and left out. What stays frozen in a stage has weights, and neither gradients nor optimiser
state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from configs.architecture import TextModel
from configs.models import Device
from configs.schema import EngineSettings, TrainingSettings
from configs.task_stages import TaskStageConfig
from configs.task_starts import BagStart, RecurrentStart, TaskStart
from configs.text_windows import BATCH_TOKENS
from orchestration.plan.hardware import GIB
from orchestration.plan.host_memory import PLAIN_GIB, worker_on_host
from orchestration.plan.memory import (
    DTYPE_BYTES,
    HEAD_CHUNK_BYTES,
    RUNTIME_GIB,
    MemoryFit,
    MemoryItem,
    count_in_words,
    state_memory,
)

GATES = {"lstm": 4, "gru": 3}
"""Gates of a cell: so many matrices that read its input, and as many that read its state."""


@dataclass(frozen=True, slots=True)
class TaskSizes:
    """A network for planning: parameters of its embeddings and of each of its layers, and what a token leaves behind.

    `layer_activations` are the values that one token leaves in one layer for the backward pass, and `heads` those that
    it leaves there for every token of its text (attention); `widest` is the width of what passes between layers.
    """

    embeddings: int
    layers: int
    layer_parameters: int
    layer_activations: int
    heads: int
    widest: int

    @property
    def parameters(self) -> int:
        """All of them, the head aside."""
        return self.embeddings + self.layers * self.layer_parameters

    def trained(self, stage: TaskStageConfig) -> int:
        """How many of them a stage trains; a head alone counts as one layer, adapters by the widths between them."""
        if stage.lora is not None:
            return self.layers * stage.lora.rank * self.layer_activations
        if stage.unfrozen == "all":
            return self.parameters
        below = min(stage.unfrozen, self.layers)
        return max(1, below) * self.layer_parameters + (self.embeddings if stage.unfrozen > self.layers else 0)


def transformer_sizes(model: TextModel) -> TaskSizes:
    """The sizes of a transformer: per layer eight tensors of the hidden size, queries, keys and values, and an MLP."""
    return TaskSizes(
        embeddings=(model.vocab + model.positions) * model.hidden,
        layers=model.layers,
        layer_parameters=model.block_weights // model.layers,
        layer_activations=11 * model.hidden + 2 * model.mlp,
        heads=model.heads,
        widest=model.hidden,
    )


def start_sizes(start: TaskStart, *, teacher: TextModel, own: TextModel | None) -> TaskSizes | None:
    """The sizes of a student by where it starts; `own` is its model. None where that is not at hand."""
    if isinstance(start, RecurrentStart | BagStart):
        return _network_sizes(start, teacher=teacher)
    if start.shape is not None:
        shape = start.shape
        made = replace(
            teacher,
            layers=shape.layers,
            hidden=shape.hidden,
            heads=shape.heads,
            mlp=shape.mlp,
            positions=shape.max_positions,
        )
        return transformer_sizes(made)
    whole = teacher if start.model is None else own
    if whole is None:
        return None
    cut = replace(
        whole,
        layers=start.layers_of(whole.layers),
        hidden=start.hidden_size or whole.hidden,
        mlp=start.mlp_channels or whole.mlp,
        heads=start.attention_heads or whole.heads,
    )
    return transformer_sizes(cut)


def task_training_memory(
    sizes: TaskSizes,
    *,
    label: str,
    settings: TrainingSettings,
    stage: TaskStageConfig,
    longest: int,
    accelerator: Device,
    beside: tuple[MemoryItem, ...] = (),
) -> MemoryFit:
    """What one GPU of the worker group holds, or one process on CPUs; `longest` are the tokens of the longest text.

    `beside` is what lies there too, as a teacher that reads beside the student. A micro-batch holds
    `micro_batch_tokens` tokens, padding included, or one text that is longer.
    """
    tokens, wide = max(settings.micro_batch_tokens, longest), DTYPE_BYTES[stage.dtype]
    kept = _kept_values(sizes, longest=longest, recomputed=settings.gradient_checkpointing)
    states = {
        offloaded: tuple(
            state_memory(
                sizes.parameters,
                largest=max(sizes.embeddings, sizes.layer_parameters),
                trained=sizes.trained(stage),
                settings=settings,
                dtype=stage.dtype,
                offloaded=offloaded,
            )
        )
        for offloaded in (False, True)
    }
    items = (
        *states[False],
        MemoryItem("activations", tokens * kept * wide, f"{tokens} tokens x {kept:,} x {wide:g} B"),
        *beside,
        MemoryItem("runtime", RUNTIME_GIB * GIB, f"{RUNTIME_GIB:g} GiB, an assumption"),
    )
    spare = "" if settings.gradient_checkpointing else "set gradient_checkpointing: true, "
    cure = f"in runtime.training {spare}lower micro_batch_tokens={settings.micro_batch_tokens}, or make it smaller"
    fit = MemoryFit(label, items, assumed=False, cure=cure, offloaded=states[True])
    return worker_on_host(fit, settings=settings) if accelerator == "cpu" else fit


def live_teacher_memory(
    model: TextModel,
    stage: TaskStageConfig,
    *,
    settings: TrainingSettings,
    dtype: str,
    longest: int,
    general: bool = False,
) -> tuple[MemoryItem, ...]:
    """What the teacher of a stage takes that reads beside the student, whole in every process; nothing without one.

    Beside `general` stages it reads whatever they take of it, as nothing is kept for them.
    It leaves the states of all layers, and the scores of attention where they are compared; one layer is computed at a
    time.
    """
    if not (stage.reads_inside if general else stage.reads_live):
        return ()
    sizes, wide = transformer_sizes(model), DTYPE_BYTES[dtype]
    tokens = max(settings.micro_batch_tokens, longest)
    scores = sizes.layers * sizes.heads * longest if any(term.reads_attention for term in stage.features) else 0
    values = (sizes.layers + 1) * model.hidden + sizes.layer_activations + sizes.heads * longest + scores
    return (
        MemoryItem("live teacher", sizes.parameters * wide, f"{count_in_words(sizes.parameters)} x {wide:g} B"),
        MemoryItem("its states", tokens * values * wide, f"{tokens} tokens x {values:,} x {wide:g} B"),
    )


def word_tables_memory(stage: TaskStageConfig) -> tuple[MemoryItem, ...]:
    """The logits of hidden tokens over the vocabulary, a chunk at a time (`student_train.losses.words`)."""
    if stage.needs != "words":
        return ()
    # The chunk's own, two softened, their product and its gradient; as many of the teacher's.
    tables = 8 if stage.soft_weight else 5
    return (MemoryItem("logits", float(tables * HEAD_CHUNK_BYTES), f"{tables} x {HEAD_CHUNK_BYTES:,} B"),)


def signal_engine_memory(
    model: TextModel, *, settings: EngineSettings, dtype: str, longest: int, accelerator: Device
) -> MemoryFit:
    """What an engine holds that says what a teacher with a head sees in texts; one layer at a time is computed."""
    sizes, wide = transformer_sizes(model), DTYPE_BYTES[dtype]
    tokens = max(BATCH_TOKENS, longest)
    values = sizes.layer_activations + sizes.heads * longest
    process = RUNTIME_GIB if accelerator == "gpu" else PLAIN_GIB
    return MemoryFit(
        "teacher engine",
        (
            MemoryItem("weights", sizes.parameters * wide, f"{count_in_words(sizes.parameters)} x {wide:g} B"),
            MemoryItem("activations", tokens * values * wide, f"{tokens} tokens x {values:,} x {wide:g} B"),
            MemoryItem("process", process * GIB, f"{process:g} GiB"),
        ),
        assumed=False,
        cure=f"lower teacher.max_tokens or runtime.teacher_engine.count={settings.count}, or name a smaller teacher",
    )


def plain_memory(model: TextModel, *, label: str) -> MemoryItem:
    """A process that runs a model with transformers, on the CPU in float32."""
    count = transformer_sizes(model).parameters
    size = 4.0 * count + PLAIN_GIB * GIB
    return MemoryItem(label, size, f"{count_in_words(count)} x 4 B + {PLAIN_GIB:g} GiB")


def _kept_values(sizes: TaskSizes, *, longest: int, recomputed: bool) -> int:
    """Values that a token leaves behind: with recomputation those of one layer, and the input of every other."""
    layer = sizes.layer_activations + 2 * sizes.heads * longest
    return sizes.layers * sizes.widest + layer if recomputed else sizes.layers * layer


def _network_sizes(start: RecurrentStart | BagStart, *, teacher: TextModel) -> TaskSizes:
    size = start.embedding_size or teacher.hidden
    embeddings = teacher.vocab * size
    if isinstance(start, BagStart):
        hidden = start.hidden or 0
        return TaskSizes(embeddings, 1, max(1, hidden * size), 2 * size, 0, size)
    gates, both = GATES[start.cell], 2 * start.hidden
    first = 2 * gates * start.hidden * (size + start.hidden)
    later = 2 * gates * start.hidden * (both + start.hidden)
    return TaskSizes(
        embeddings, start.layers, (first + (start.layers - 1) * later) // start.layers,
        size + (gates + 2) * both, 0, both,
    )  # fmt: skip
