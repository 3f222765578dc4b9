"""Task students from transformers: encoders, and decoders with a head, read from and written to plain directories.

A decoder classifies by its last token, which transformers finds by what is not the padding token; so the places that
the mask leaves out are filled with that token here, whatever stood there.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from configs.architecture import POSITION_KEYS
from configs.errors import ModelError
from configs.model_files import weight_files
from configs.task import TaskKind
from configs.task_features import InsideSizes
from configs.visible_text import first_line
from student_train.feed.task_batch import TaskBatch
from student_train.files import copy_companions
from student_train.models.loading import load_seeded, require_all_weights
from student_train.models.task_student import ANY_LENGTH, TaskStudent, order_of_labels, reorder_rows
from student_train.models.task_tokenizer import load_task_tokenizer, require_pairs
from student_train.models.tracing import Trace, recording

HEADS: Mapping[TaskKind, tuple[str, Any]] = {
    "classification": ("ForSequenceClassification", AutoModelForSequenceClassification),
    "tagging": ("ForTokenClassification", AutoModelForTokenClassification),
    "extractive_qa": ("ForQuestionAnswering", AutoModelForQuestionAnswering),
}
"""How the class of a model ends that does a kind of task, and what loads it."""

SPANS = ("first", "last")
"""The outputs of a head for spans."""

POOLER = "pooler"
"""The layer that BERT and its kin have between body and classifier; published bodies often lack it."""

_FINAL_NORMS = ("norm", "final_norm", "final_layer_norm", "ln_f", "norm_f")
"""What a body does to the output of its last layer; it learns with that layer."""


class TransformerStudent(TaskStudent):
    """A model of transformers with a task head. `model` is that model, `pad` the id of its padding token."""

    def __init__(self, model: Any, *, kind: TaskKind, labels: Sequence[str], pad: int, segments: bool) -> None:
        super().__init__(
            kind=kind,
            labels=labels,
            vocab=int(model.get_input_embeddings().weight.shape[0]),
            max_tokens=_positions(model),
        )
        self.model = model
        self._pad, self._segments = pad, segments
        named = inspect.signature(model.forward).parameters
        self._fixed: dict[str, Any] = {"use_cache": False} if "use_cache" in named else {}

    def forward(
        self,
        input_ids: Int64[Tensor, "B T"],
        attention_mask: Int64[Tensor, "B T"],
        segment_ids: Int64[Tensor, "B T"],
    ) -> Tensor:
        """See `TaskStudent.forward`."""
        return self._logits(self._output(input_ids, attention_mask, segment_ids))

    @property
    def sizes(self) -> InsideSizes:
        """See `TaskStudent.sizes`."""
        config = self.model.config
        widths = (int(config.hidden_size),) * (int(config.num_hidden_layers) + 1)
        return InsideSizes(widths, int(config.num_attention_heads))

    def traced(self, batch: TaskBatch) -> Trace:
        """See `TaskStudent.traced`."""
        with recording() as scores:
            output = self._output(batch.input_ids, batch.attention_mask, batch.segment_ids, output_hidden_states=True)
        return Trace(self.at_units(self._logits(output), batch), tuple(output.hidden_states), tuple(scores))

    def in_head(self, name: str) -> bool:
        """Whether a parameter of `model` belongs to its head."""
        return is_head(self.model, name)

    def _output(self, input_ids: Tensor, attention_mask: Tensor, segment_ids: Tensor, **wanted: bool) -> Any:
        segments = {"token_type_ids": segment_ids} if self._segments else {}
        return self.model(
            input_ids=input_ids.masked_fill(attention_mask == 0, self._pad),
            attention_mask=attention_mask,
            **segments,
            **self._fixed,
            **wanted,
        )

    def _logits(self, output: Any) -> Tensor:
        if self.kind == "extractive_qa":
            return torch.stack([output.start_logits, output.end_logits], dim=-1)
        logits: Tensor = output.logits
        return logits

    def recompute_activations(self) -> None:
        """See `TaskStudent.recompute_activations`."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """See `TaskStudent.layer_groups`. The pooler counts as head, what all layers share as embeddings."""
        head: list[nn.Parameter] = []
        top: list[nn.Parameter] = []
        bottom: list[nn.Parameter] = []
        layers = layers_of(self.model)
        inside = {id(each) for each in layers.parameters()}
        for name, parameter in self.model.named_parameters():
            if self.in_head(name):
                head.append(parameter)
            elif id(parameter) not in inside:
                (top if _owner(name) in _FINAL_NORMS else bottom).append(parameter)
        groups = [list(layer.parameters()) for layer in reversed(layers)]
        groups[0] += top
        return [head, *groups, bottom]


def load_transformer_student(
    model_dir: Path, *, kind: TaskKind, labels: Sequence[str], dtype: torch.dtype, head_seed: int | None
) -> TransformerStudent:
    """Load a directory that save_pretrained wrote (see `student_train.models.task_model.load_task_student`)."""
    weight_files(model_dir)
    tokenizer = load_task_tokenizer(model_dir)
    if kind == "extractive_qa":
        require_pairs(tokenizer, model_dir)
    config = read_model_config(model_dir)
    there = _has_head(config, kind=kind, model_dir=model_dir)
    if not there and head_seed is None:
        raise ModelError(f"{model_dir}: has no head for {kind}: name a model whose class ends with {HEADS[kind][0]}")
    order = None
    if not there:
        _name_labels(config, SPANS if kind == "extractive_qa" else labels)
    elif kind != "extractive_qa":
        found = [str(config.id2label[at]) for at in sorted(config.id2label)]
        order = order_of_labels(found, wanted=labels, model_dir=model_dir)
    config.pad_token_id = tokenizer.pad_token_id
    model = _load(model_dir, config, kind=kind, dtype=dtype, head_seed=None if there else head_seed)
    if order is not None and order != sorted(order):
        reorder_rows(_last_linear(model, len(order)), order)
        _name_labels(model.config, labels)
    student = _student(model, kind=kind, labels=labels, tokenizer=tokenizer)
    student.new_head = not there
    return student


def random_transformer(
    config: Any, *, kind: TaskKind, labels: Sequence[str], tokenizer: Any, seed: int
) -> TransformerStudent:
    """A student of this configuration of transformers, its weights drawn with `seed`, for this tokenizer."""
    _name_labels(config, SPANS if kind == "extractive_qa" else labels)
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HEADS[kind][1].from_config(config).eval()
    student = _student(model, kind=kind, labels=labels, tokenizer=tokenizer)
    student.new_head = True
    return student


def stored_head(model_dir: Path) -> tuple[TaskKind, tuple[str, ...]]:
    """The kind of a model's head and its labels (see `student_train.models.task_model.stored_task`)."""
    config = read_model_config(model_dir)
    for kind, (ending, _) in HEADS.items():
        if any(str(name).endswith(ending) for name in config.architectures or ()):
            found = tuple(str(config.id2label[at]) for at in sorted(config.id2label))
            return kind, SPANS if kind == "extractive_qa" else found
    raise ModelError(
        f"{model_dir}: has no task head: name a model whose class ends with one of "
        + ", ".join(ending for ending, _ in HEADS.values())
    )


def stored_positions(model_dir: Path) -> int:
    """The tokens of the longest row that a model reads, by its config.json: it is built without any weights.

    Raises:
        ModelError: its config.json cannot be read.
    """
    config = read_model_config(model_dir)
    with torch.device("meta"):
        return _positions(AutoModel.from_config(config))


def write_transformer_student(
    student: TransformerStudent, weights: Mapping[str, Tensor], *, start: Path, folder: Path
) -> None:
    """Fill `folder` (see `student_train.models.task_model.write_task_student`)."""
    copy_companions(start, folder)
    plain = {name.removeprefix("model."): weight.contiguous() for name, weight in weights.items()}
    student.model.save_pretrained(folder, state_dict=plain, safe_serialization=True)


def layers_of(model: Any) -> nn.ModuleList:
    """The layers of a model, from the bottom up.

    Raises:
        ModelError: it has no list of them.
    """
    # Outer modules come first: lists inside a layer (experts) come after the list of layers.
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module):
            return module
    raise ModelError(f"{model.config.model_type}: has no list of layers: name another model")


def segments_of(model: Any, tokenizer: Any) -> bool:
    """Whether a model is told which of two texts a token is from."""
    # RoBERTa has one segment, and tokenizers that give none were never trained with two.
    return "token_type_ids" in tokenizer.model_input_names and getattr(model.config, "type_vocab_size", 0) > 1


def is_head(model: Any, name: str) -> bool:
    """Whether a parameter of a model belongs to its task head: it is outside the body, or in its pooler."""
    body = f"{model.base_model_prefix}."
    return not name.startswith(body) or name.removeprefix(body).split(".")[0] == POOLER


def read_model_config(model_dir: Path) -> Any:
    """The config.json of a model as transformers reads it.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return AutoConfig.from_pretrained(model_dir, trust_remote_code=False, local_files_only=True)
    # Each architecture has a parser of its own, which may die of anything that it does not expect.
    except Exception as error:
        raise ModelError(
            f"{model_dir}: its config.json cannot be read ({first_line(error)}): save the model with the transformers "
            "of this installation"
        ) from error


def _student(model: Any, *, kind: TaskKind, labels: Sequence[str], tokenizer: Any) -> TransformerStudent:
    segments = segments_of(model, tokenizer)
    return TransformerStudent(model, kind=kind, labels=labels, pad=tokenizer.pad_token_id, segments=segments)


def _has_head(config: Any, *, kind: TaskKind, model_dir: Path) -> bool:
    """Whether the config names a class with the head of this kind.

    Raises:
        ModelError: it has the head of another kind, whose tensors may bear the same names.
    """
    classes = tuple(map(str, config.architectures or ()))
    for other, (ending, _) in HEADS.items():
        if other != kind and any(name.endswith(ending) for name in classes):
            raise ModelError(
                f"{model_dir}: its head does {other}, not {kind}: name a model for {kind}, or without head"
            )
    return any(name.endswith(HEADS[kind][0]) for name in classes)


def _load(model_dir: Path, config: Any, *, kind: TaskKind, dtype: torch.dtype, head_seed: int | None) -> Any:
    ending, loader = HEADS[kind]
    model, drawn = load_seeded(
        loader,
        model_dir,
        config=config,
        dtype=dtype,
        seed=head_seed or 0,
        wanted=f"for {kind}",
        cure=f"name a model that transformers has a {ending} of",
    )
    require_all_weights(model_dir, {name for name in drawn if head_seed is None or not is_head(model, name)})
    if head_seed is not None and not drawn:
        raise ModelError(
            f"{model_dir}: holds a head that its config.json does not name: let architectures name the class"
        )
    return model


def _name_labels(config: Any, labels: Sequence[str]) -> None:
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: at for at, label in enumerate(labels)}


def _last_linear(model: Any, outputs: int) -> nn.Linear:
    """The layer that makes the logits."""
    linears = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and is_head(model, f"{name}.weight")
    ]
    if not linears or linears[-1].out_features != outputs:
        raise ModelError(
            f"{model.config.model_type}: its head does not end with a linear layer of {outputs} outputs, so its labels "
            "cannot be brought into the order of the task: list the task's labels in the order of id2label"
        )
    return linears[-1]


def _positions(model: Any) -> int:
    """The tokens of the longest row. RoBERTa and its kin count positions from behind that of padding."""
    config = model.config
    stated = next((found for key in POSITION_KEYS if (found := getattr(config, key, None))), ANY_LENGTH)
    table = next(
        (module for name, module in model.named_modules() if name.endswith("position_embeddings")),
        None,
    )
    padding = getattr(table, "padding_idx", None)
    return int(stated if padding is None else stated - padding - 1)


def _owner(name: str) -> str:
    """The module that holds a parameter."""
    return name.split(".")[-2]
