"""Tiny task students of several families on disk, with random weights and one vocabulary of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from model_cards import save_card
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)

from configs.task import TaskKind
from student_train.feed.task_batch import TaskBatch
from student_train.models.bag import BagStudent
from student_train.models.recurrent import RecurrentStudent
from student_train.models.task_network import write_network

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (*SPECIAL, *(f"w{number}" for number in range(30)), "##s", "##ed")
LABELS = ("no", "maybe", "yes")
FAMILIES = ("bert", "distilbert", "roberta", "llama")
NETWORKS: dict[str, dict[str, Any]] = {
    "lstm": {"kind": "recurrent", "cell": "lstm", "hidden": 6, "layers": 2},
    "gru": {"kind": "recurrent", "cell": "gru", "hidden": 5},
    "attention": {"kind": "recurrent", "hidden": 6, "pooling": "attention"},
    "bag": {"kind": "bag", "left_out": [0, 2, 3]},
    "deep-bag": {"kind": "bag", "left_out": [0, 2, 3], "hidden": 7},
}
"""Networks over embeddings by a name, and their settings."""
OTHERS = ("mpnet", "electra", "deberta", "modernbert", "qwen2", "gpt2")
"""Families that are built in ways of their own: shared biases, local attention, other names."""
PAIRED = ("bert", "distilbert", "roberta")
"""Families whose tokenizer puts something between two texts."""

_OTHER_CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "electra": (ElectraConfig, {"embedding_size": 8}),
    "deberta": (
        DebertaV2Config,
        {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "type_vocab_size": 0,
            "position_biased_input": False,
        },
    ),
    "modernbert": (ModernBertConfig, {"global_attn_every_n_layers": 3, "local_attention": 4, "cls_token_id": 2}),
    "qwen2": (
        Qwen2Config,
        {"num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
    ),
}

_LOADERS = {
    None: AutoModel,
    "classification": AutoModelForSequenceClassification,
    "tagging": AutoModelForTokenClassification,
    "extractive_qa": AutoModelForQuestionAnswering,
}


def transformer_config(family: str, *, layers: int = 3, positions: int = 40) -> Any:
    """The sizes of a tiny model; weights are large enough that every mistake shows."""
    pad = {"pad_token_id": 0, "vocab_size": len(WORDS), "initializer_range": 0.3}
    usual = {
        "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": positions,
    }  # fmt: skip
    if family == "distilbert":
        return DistilBertConfig(
            dim=16, n_layers=layers, n_heads=2, hidden_dim=24, max_position_embeddings=positions, **pad
        )
    if family == "gpt2":
        return GPT2Config(n_embd=16, n_layer=layers, n_head=2, n_positions=positions, **pad)
    if family == "mpnet":
        # It pads with id 1, whatever its config says.
        return MPNetConfig(**usual, **pad | {"pad_token_id": 1})
    if family in _OTHER_CONFIGS:
        kind, extra = _OTHER_CONFIGS[family]
        return kind(**usual, **pad, **extra)
    if family == "llama":
        return LlamaConfig(**usual, num_key_value_heads=1, head_dim=8, bos_token_id=2, eos_token_id=3, **pad)
    return {"bert": BertConfig, "roberta": RobertaConfig}[family](
        **usual, type_vocab_size=2 if family == "bert" else 1, **pad
    )


def save_transformer(
    place: Path,
    *,
    family: str = "bert",
    kind: TaskKind | None = "classification",
    labels: Sequence[str] = LABELS,
    layers: int = 3,
    seed: int = 1,
) -> Path:
    """A model with a head of this kind, or without one, and its tokenizer."""
    config = transformer_config(family, layers=layers)
    if kind in ("classification", "tagging"):
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: at for at, label in enumerate(labels)}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _LOADERS[kind].from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() == 1:
                    weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(place)
    save_tokenizer(place, family=family)
    return save_card(place)


def save_network(
    place: Path, *, name: str, task: TaskKind = "classification", labels: Sequence[str] = LABELS, seed: int = 1
) -> Path:
    """A network over embeddings of random weights, and its tokenizer."""
    settings = {"task": task, "labels": labels, "vocab": len(WORDS), "embedding_size": 8} | NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = {"recurrent": RecurrentStudent, "bag": BagStudent}[settings["kind"]].of(settings)
        with torch.no_grad():
            for weight in student.parameters():
                weight.copy_(0.5 * torch.randn_like(weight))
    tokenizer = place.with_name(f"{place.name}-tokenizer")
    save_tokenizer(tokenizer)
    place.mkdir(parents=True)
    write_network(student, dict(student.named_parameters()), start=tokenizer, folder=place)
    return place


def save_student(place: Path, *, name: str, **options: Any) -> Path:
    """A student of one of `FAMILIES` or `NETWORKS`, for classification."""
    if name in NETWORKS:
        return save_network(place, name=name, **options)
    return save_transformer(place, family=name, **options)


def save_tokenizer(place: Path, *, family: str = "bert") -> None:
    """Words and their endings; a row begins with [CLS], encoders end it with [SEP]."""
    backend = Tokenizer(WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    single, pair = {
        **dict.fromkeys(("llama", "qwen2", "gpt2"), ("[CLS] $A", "[CLS] $A $B")),
        "roberta": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
    }.get(family, ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"))
    backend.post_processor = TemplateProcessing(
        single=single, pair=pair, special_tokens=[(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
    )
    names = ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=[*names, "token_type_ids"] if family == "bert" else names,
    ).save_pretrained(place)  # fmt: skip


def rows_of(lengths: Sequence[int], *, seed: int = 0, width: int | None = None, rubbish: int = 0) -> Any:
    """(input_ids, attention_mask, segment_ids) of rows of these lengths; a row's content depends on its length alone.

    `rubbish` is what stands at padding. The second half of a row is its second text.
    """
    width = width or max(lengths)
    ids = torch.full((len(lengths), width), rubbish, dtype=torch.int64)
    mask, segments = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        draw = torch.Generator().manual_seed(1000 * seed + length)
        ids[row, :length] = torch.randint(4, len(WORDS), (length,), generator=draw)
        ids[row, 0] = WORDS.index("[CLS]")
        mask[row, :length] = 1
        segments[row, (length + 1) // 2 : length] = 1
    return ids, mask, segments


def batch_of(lengths: Sequence[int], *, kind: TaskKind = "classification") -> TaskBatch:
    """A micro-batch of such rows: one unit a row, or every token but the first."""
    ids, mask, segments = rows_of(lengths)
    at = torch.arange(len(lengths))
    places = [row * ids.shape[1] + token for row, length in enumerate(lengths) for token in range(1, length)]
    owner = [row for row, length in enumerate(lengths) for _ in range(1, length)]
    each = kind != "classification"
    return TaskBatch(
        input_ids=ids,
        attention_mask=mask,
        segment_ids=segments,
        units=torch.tensor(places) if each else at * ids.shape[1],
        owner=torch.tensor(owner) if each else at,
        gold=torch.zeros(len(places) if each else len(lengths), dtype=torch.int64),
        teacher=None,
    )
