"""Where students start: each start against random weights of the same shape, after the same steps.

The teacher is a small Llama that is trained here, within a minute, on a made-up language, so that its layers, heads and
channels hold something. In every sequence one of four tables decides how a token follows from the two before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks.measurement import Measurement
from benchmarks.timing import one_thread
from configs.stages import LoraConfig, StageConfig
from student_train.feed.microbatch import MicroBatch
from student_train.losses.targets import SparseTargets
from student_train.models.adapters import attach_adapters
from student_train.models.decoder import StudentModule, take_apart
from student_train.starts.calibration import Calibration, calibrate
from student_train.starts.derive import derive_student
from student_train.starts.sizes import kept_layers

VOCAB, LENGTH, ROWS, K, LAYERS = 64, 48, 32, 16, 6
TEACHER_STEPS, STEPS = 300, 30
STAGE = StageConfig(objective="kd", steps=STEPS)


@dataclass(frozen=True, slots=True)
class StartResult:
    """KL(teacher ‖ student), nats a token of held-out text: of the start, of it and of random weights after `STEPS`."""

    name: str
    untouched: float
    trained: float
    random: float


def bench_student_starts() -> Iterator[Measurement]:
    """One line a start."""
    with one_thread(), tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        for result in compare_starts(Path(folder)):
            peers = {"untouched": result.untouched, "random weights of that shape": result.random}
            what = f"start {result.name}, KL after {STEPS} steps"
            yield Measurement(what, result.trained, "nats a token", digits=3, peers=peers)


def compare_starts(folder: Path) -> Iterator[StartResult]:
    """Train a teacher in `folder`, then every start and its random twin on the same batches."""
    teacher = trained_teacher(folder / "teacher")
    model = AutoModelForCausalLM.from_pretrained(teacher)
    batches = [_batch(model, seed=1000 + step) for step in range(STEPS)]
    held_out = language(seed=1)
    found = calibrate(teacher, language(seed=2).numpy(), measure_widths=True)
    for name, sizes, lora in _starts(found):
        start = derive_student(teacher, folder / "start", **sizes, calibration=found)
        ours = AutoModelForCausalLM.from_pretrained(start)
        torch.manual_seed(3)
        chance = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(start))
        if lora is not None:
            attach_adapters(ours, lora)
        untouched = _divergence(ours, model, held_out)
        for student in (ours, chance):
            _train(student, batches)
        yield StartResult(name, untouched, _divergence(ours, model, held_out), _divergence(chance, model, held_out))


def _starts(found: Calibration) -> Iterator[tuple[str, dict[str, Any], LoraConfig | None]]:
    """Name, sizes and adapters of each start."""
    influence = found.block_influence.tolist()
    yield "linspace", {"keep_layers": 4}, None
    yield "contiguous", {"keep_layers": kept_layers(4, total=LAYERS, by="contiguous")}, None
    by_influence = kept_layers(4, total=LAYERS, by="block_influence", influence=influence)
    yield "block influence", {"keep_layers": by_influence}, None
    yield "attention heads", {"attention_heads": 4}, None
    yield "mlp channels", {"mlp_channels": 96}, None
    yield "hidden size", {"hidden_size": 48}, None
    yield "linspace, adapters", {"keep_layers": 4}, LoraConfig(rank=8)


def trained_teacher(path: Path) -> Path:
    """A Llama of six layers that has learned the language; its directory."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=192, num_hidden_layers=LAYERS, num_attention_heads=8,
        num_key_value_heads=4, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=TEACHER_STEPS)
    for step in range(TEACHER_STEPS):
        tokens = language(seed=10_000 + step)
        model(tokens, labels=tokens).loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    model.save_pretrained(path)
    return path


def language(*, seed: int) -> Tensor:
    """Rows of the language: seven tokens of ten follow from the row's table and the two before, three are free."""
    tables = torch.randint(VOCAB, (4, VOCAB, 4), generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    table = torch.randint(4, (ROWS,), generator=draw)
    tokens = torch.randint(VOCAB, (ROWS, LENGTH), generator=draw)
    follows = torch.rand(ROWS, LENGTH, generator=draw) < 0.7
    for at in range(2, LENGTH):
        next_tokens = tables[table, tokens[:, at - 1], tokens[:, at - 2] % 4]
        tokens[:, at] = torch.where(follows[:, at], next_tokens, tokens[:, at])
    return tokens


@torch.no_grad()
def _batch(teacher: Any, *, seed: int) -> MicroBatch:
    """Text with what the teacher believes at every position."""
    tokens = language(seed=seed)
    logprobs = teacher(tokens[:, :-1]).logits.flatten(0, 1).log_softmax(dim=1)
    top = logprobs.topk(K)
    tail = torch.log1p(-top.values.exp().sum(dim=1).clamp_max(1 - 1e-6))
    targets = SparseTargets(top.indices, top.values, tail)
    return MicroBatch(
        input_ids=tokens[:, :-1],
        position_ids=None,
        positions=torch.arange(len(tail)),
        labels=tokens[:, 1:].flatten(),
        targets=targets,
    )


def _train(student: Any, batches: list[MicroBatch]) -> None:
    module = StudentModule(take_apart(student.train()), stage=STAGE, vocab=VOCAB)
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=2e-3, weight_decay=0.0)
    for batch in batches:
        loss, _ = module(batch)
        (loss / len(batch.labels)).backward()
        optimiser.step()
        optimiser.zero_grad()


@torch.no_grad()
def _divergence(student: Any, teacher: Any, tokens: Tensor) -> float:
    """KL(teacher ‖ student) over the whole vocabulary."""
    ours, theirs = (model.eval()(tokens).logits.log_softmax(dim=-1) for model in (student, teacher))
    return float((theirs.exp() * (theirs - ours)).sum(dim=-1).mean())
