"""Networks over embeddings as directories: sizes, weights, tokenizer, and how to load them without Stillroom.

transformers knows no such models, so their `config.json` has a format of its own, and a README beside it holds a few
lines of torch that run the model. The names of the weights are those of the module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeVar

import torch
from jaxtyping import Float, Int64
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from configs.errors import ModelError
from configs.model_files import CONFIG, WEIGHTS, read_config, weight_files
from configs.models import Block, Positive
from configs.task import TaskKind
from configs.task_features import InsideSizes
from configs.visible_text import visible
from student_train.feed.task_batch import TaskBatch
from student_train.files import copy_companions
from student_train.models.task_student import ANY_LENGTH, TaskStudent, order_of_labels, reorder_rows
from student_train.models.tracing import Trace

FORMAT: Literal["stillroom/task-network/1"] = "stillroom/task-network/1"


class NetworkConfig(Block):
    """What the `config.json` of every network over embeddings says.

    `labels` are in the order of the outputs; `vocab` is the number of embeddings, `embedding_size` their width.
    """

    format: Literal["stillroom/task-network/1"] = FORMAT
    kind: str
    task: Literal["classification", "tagging", "extractive_qa"]
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    vocab: Positive
    embedding_size: Positive
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1

    @property
    def head_inputs(self) -> int:
        """The width of what its head reads."""
        return self.embedding_size

    @property
    def inside(self) -> InsideSizes:
        """Of what is inside: its embeddings, and what its head reads."""
        return InsideSizes((self.embedding_size, self.head_inputs), heads=None)


class NetworkStudent(TaskStudent):
    """A network over embeddings. `head` is the linear layer that makes the logits."""

    loading: ClassVar[str]
    """Lines of Python that make `logits` [B, C] or [B, T, C] of `config`, `weights` and `ids` [B, T]."""

    config_class: ClassVar[type[NetworkConfig]]
    """What its `config.json` is read as."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(kind=config.task, labels=config.labels, vocab=config.vocab, max_tokens=ANY_LENGTH)
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.embedding_size)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.head_inputs, len(config.labels))

    def embedded(self, input_ids: Int64[Tensor, "B T"], attention_mask: Int64[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        """Embeddings of the tokens; what stands at padding need not be a token."""
        found: Tensor = self.embedding(input_ids.masked_fill(attention_mask == 0, 0))
        return found

    @property
    def sizes(self) -> InsideSizes:
        """See `TaskStudent.sizes`."""
        return self.config.inside

    def traced(self, batch: TaskBatch) -> Trace:
        """See `TaskStudent.traced`. What the head reads has gone through dropout."""
        seen: list[Tensor] = []
        hooks = [
            self.embedding.register_forward_hook(lambda _, given, made: seen.append(made)),
            self.head.register_forward_pre_hook(lambda _, given: seen.append(given[0])),
        ]
        try:
            logits = self.unit_logits(batch)
        finally:
            for hook in hooks:
                hook.remove()
        return Trace(logits, tuple(seen))

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Self:
        """The network of a config, with random weights.

        Raises:
            ValidationError: the config is not one of such a network.
        """
        return cls(cls.config_class.model_validate(values))


Network = TypeVar("Network", bound=NetworkStudent)


def is_network(model_dir: Path) -> bool:
    """Whether a directory holds a network over embeddings, of this version of the format.

    Raises:
        ModelError: there is no config.json that can be read, or it is of another version.
    """
    stated = read_config(model_dir).get("format")
    if isinstance(stated, str) and stated != FORMAT and stated.startswith(FORMAT.rpartition("/")[0]):
        raise ModelError(f"{model_dir / CONFIG}: format={stated}, and {FORMAT} is what is read: train it again")
    return stated == FORMAT


def read_network_config(model_dir: Path, network: type[NetworkStudent]) -> NetworkConfig:
    """The sizes of a network on disk.

    Raises:
        ModelError: its config.json is not one of such a network.
    """
    try:
        return network.config_class.model_validate(read_config(model_dir))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "config"
        raise ModelError(f"{model_dir / CONFIG}: {key}: {first['msg']}: copy or make it again") from error


def load_network(
    model_dir: Path, network: type[Network], *, kind: TaskKind, labels: Sequence[str], dtype: torch.dtype
) -> Network:
    """Load a network (see `student_train.models.task_model.load_task_student`)."""
    student = network(read_network_config(model_dir, network))
    if student.kind != kind:
        raise ModelError(f"{model_dir}: its head does {student.kind}, not {kind}: name a model for {kind}")
    try:
        student.load_state_dict(
            {name: each for path in weight_files(model_dir) for name, each in load_file(path).items()}
        )
    except (SafetensorError, RuntimeError, OSError) as error:
        said = visible(" ".join(str(error).split()), at_most=200)
        raise ModelError(
            f"{model_dir}: its weights are not those that its config.json asks for ({said}): copy or make it again"
        ) from error
    if kind != "extractive_qa":
        order = order_of_labels(student.labels, wanted=labels, model_dir=model_dir)
        reorder_rows(student.head, order)
        student.labels = tuple(labels)
    return student.to(dtype).eval()


def write_network(student: NetworkStudent, weights: Mapping[str, Tensor], *, start: Path, folder: Path) -> None:
    """Fill `folder` (see `student_train.models.task_model.write_task_student`)."""
    copy_companions(start, folder)
    config = student.config.model_copy(update={"labels": student.labels})
    (folder / CONFIG).write_text(json.dumps(config.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / WEIGHTS)
    (folder / "README.md").write_text(loading_text(student), encoding="utf-8")


def loading_text(student: NetworkStudent) -> str:
    """How to run a network without Stillroom, as Markdown."""
    said = {
        "classification": 'print(config["labels"][logits[0].argmax()])',
        "tagging": 'print([config["labels"][at] for at in logits[0].argmax(dim=-1)])',
        "extractive_qa": 'print("first and last token:", logits[0].argmax(dim=0).tolist())',
    }[student.kind]
    return f"""# A {student.config.kind} network for {student.kind.replace("_", " ")}

It needs torch, safetensors and tokenizers. In this directory:

```python
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

text = "Any text."
config = json.loads(Path("config.json").read_text())
weights = {{name: weight.float() for name, weight in load_file("model.safetensors").items()}}
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.no_padding()
tokenizer.no_truncation()
ids = torch.tensor([tokenizer.encode(text).ids])

{student.loading.strip()}
{said}
```
"""
