"""Plain text beside rollouts: which pieces a step learns, what they weigh, and that no split of them shows."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from student_builders import VOCAB, records, tiny_llama
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from configs.errors import TrainingError
from configs.rollouts import PretrainConfig
from configs.stages import StageConfig
from student_train.feed.microbatch import collate
from student_train.feed.plain_text import PIECES, PlainFeed, PlainPieces
from student_train.feed.steps import StepBatch, joined
from student_train.losses.metrics import METRICS
from student_train.models.decoder import StudentModule, load_decoder
from student_train.worker_group import WorkerGroup

DRAW = np.random.default_rng(4)
TEXTS = [DRAW.integers(3, VOCAB, size=size).tolist() for size in (2, 41, 7, 1, 23, 9, 30, 5, 17, 12)]
TEXT = PlainPieces.cut(TEXTS, max_tokens=16)
SCORED = {"objective": "kd", "rollout": {"count": 1}}
WEIGHT = 0.7


def stage(**fields: Any) -> StageConfig:
    return StageConfig.model_validate(SCORED | {"dtype": "float32"} | fields)


def feed(*, tokens: int = 40, seed: int = 0, rank: int = 0, world: int = 1, **fields: Any) -> PlainFeed:
    known: dict[str, Any] = {"pieces": TEXT, "digest": TEXT.digest, "micro_batch_tokens": 48, "packs": False}
    config = PretrainConfig(path=Path("text.jsonl"), weight=WEIGHT, tokens=tokens)
    return PlainFeed(config=config, seed=seed, group=WorkerGroup(rank, world, torch.device("cpu")), **known | fields)


def rollout_step(response_tokens: int = 20) -> StepBatch:
    batches = (collate(records(3), with_targets=True),)
    return StepBatch(response_tokens, 30, 30, ("aa",), batches, (np.arange(3),))


def test_every_token_of_a_text_but_the_first_is_predicted_once() -> None:
    assert TEXT.predicted.max() == 16
    followed = [tuple(TEXT.record(at).token_ids) for at in range(len(TEXT.ends))]
    pairs = [pair for ids in followed for pair in pairwise(ids)]
    assert pairs == [pair for ids in TEXTS for pair in pairwise(ids)]
    assert TEXT.predicted.sum() == len(pairs)


@given(at=st.integers(0, 4000), junk=st.binary(min_size=1, max_size=8), cut=st.booleans())
@settings(deadline=None)
def test_a_damaged_file_is_one_line(at: int, junk: bytes, cut: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("pieces") / PIECES
    TEXT.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] if cut else whole[:at] + junk + whole[at + len(junk) :])
    try:
        found = PlainPieces.load(path, digest=TEXT.digest)
    except TrainingError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert np.array_equal(found.ids, TEXT.ids) and np.array_equal(found.ends, TEXT.ends)


def test_what_is_not_a_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / PIECES)
    with pytest.raises(TrainingError, match="is damaged"):
        PlainPieces.load(tmp_path / PIECES, digest=TEXT.digest)


def test_what_was_written_is_read_back_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "work" / PIECES
    with pytest.raises(
        TrainingError, match=r"plain-text.npz is missing, but pretrain needs text .*start the run again"
    ):
        PlainPieces.load(path, digest=TEXT.digest)
    TEXT.save(path)
    found = PlainPieces.load(path, digest=TEXT.digest)
    assert np.array_equal(found.ids, TEXT.ids) and np.array_equal(found.ends, TEXT.ends)
    assert list(path.parent.iterdir()) == [path]
    other = PlainPieces.cut(TEXTS, max_tokens=15)
    assert other.digest != TEXT.digest
    for digest in (other.digest, None):
        with pytest.raises(TrainingError, match=f"holds text {TEXT.digest[:12]}, but pretrain needs"):
            PlainPieces.load(path, digest=digest)


@pytest.mark.parametrize("tokens", [16, 40, 100])
def test_every_pass_learns_every_piece_once_in_steps_of_like_size(tokens: int) -> None:
    """Steps are asked for in any order, as after a resume, and laid behind each other they are whole passes."""
    ours = feed(tokens=tokens)
    rows = {step: ours.rows(step) for step in reversed(range(60))}
    sizes = np.array([TEXT.predicted[rows[step]].sum() for step in range(60)])
    assert sizes.min() > 0 and sizes.max() < tokens + 16 and abs(sizes.mean() - tokens) < 1
    stream, pieces = np.concatenate([rows[step] for step in range(60)]), len(TEXT.ends)
    passes = [stream[start : start + pieces] for start in range(0, len(stream) - pieces, pieces)]
    assert len(passes) > 3 and all(sorted(one) == list(range(pieces)) for one in passes)
    assert not np.array_equal(passes[0], passes[1])


def test_the_order_follows_from_text_and_seed() -> None:
    def stream(**fields: Any) -> list[int]:
        return np.concatenate([feed(**fields).rows(step) for step in range(4)]).tolist()

    assert stream() == stream(rank=1, world=3, micro_batch_tokens=16)
    assert stream() != stream(seed=1)
    assert stream() != stream(digest=PlainPieces.cut(TEXTS, max_tokens=15).digest)


def test_a_text_shorter_than_a_step_is_learned_whole_each_time() -> None:
    assert all(sorted(feed(tokens=4096).rows(step)) == list(range(len(TEXT.ends))) for step in range(3))


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("plain-text") / "student")


def by_transformers(model_dir: Path, rows: np.ndarray) -> tuple[float, dict[str, Tensor]]:
    """Mean cross-entropy of some pieces in float64, and its gradient, with one piece a forward pass."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float64)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in rows:
        ids = torch.from_numpy(TEXT.record(int(row)).token_ids.astype(np.int64))
        total = total + cross_entropy(model(ids[None]).logits[0, :-1, :VOCAB], ids[1:], reduction="sum")
        count += len(ids) - 1
    (total / count).backward()
    return float(total.detach()) / count, {name: value.grad for name, value in model.named_parameters()}


@pytest.mark.parametrize("objective", ["kd", "minillm"])
def test_no_split_over_processes_micro_batches_or_rows_changes_loss_or_gradient(objective: str, student: Path) -> None:
    rows = feed().rows(2)
    mean, gradient = by_transformers(student, rows)
    response_tokens = 20
    for world, tokens, packs in ((1, 4096, False), (2, 48, False), (2, 48, True), (5, 16, False)):
        decoder = load_decoder(student, dtype=torch.float32)
        module = StudentModule(decoder, stage=stage(objective=objective), vocab=VOCAB)
        steps = [
            feed(rank=rank, world=world, micro_batch_tokens=tokens, packs=packs).beside(
                rollout_step(response_tokens), step=2
            )
            for rank in range(world)
        ]
        assert len({len(step.plain) for step in steps}) == 1
        assert {step.plain_tokens for step in steps} == {int(TEXT.predicted[rows].sum())}
        sums, loss = torch.zeros(len(METRICS), dtype=torch.float64), torch.zeros(())
        for micro in (micro for step in steps for micro in step.plain):
            part, metrics = module(micro.to(torch.device("cpu")))
            # As the engine does; its factor world_size and the mean over processes cancel.
            (part / response_tokens).backward()
            loss, sums = loss + part.detach() / response_tokens, sums + metrics
        assert float(loss) == pytest.approx(WEIGHT * mean, rel=1e-5)
        assert float(sums[METRICS.index("pretrain")]) / steps[0].plain_tokens == pytest.approx(mean, rel=1e-5)
        assert np.flatnonzero(sums.numpy()).tolist() == [METRICS.index("pretrain")]
        for name, value in decoder.model.named_parameters():
            torch.testing.assert_close(value.grad.double(), WEIGHT * gradient[name], rtol=1e-4, atol=1e-6)


def test_processes_get_about_the_same_share() -> None:
    shares = [feed(tokens=100, rank=rank, world=2).beside(rollout_step(), step=0) for rank in range(2)]
    loads = [sum(len(micro.labels) for micro in share.plain) for share in shares]
    assert sum(loads) == shares[0].plain_tokens
    assert abs(loads[0] - loads[1]) <= 16


def test_several_rollouts_in_one_step_share_one_plain_text_that_counts_as_much() -> None:
    one, ours = rollout_step(), feed()
    alone, both = ours.beside(one, step=3), ours.beside(joined([one, one], metrics={}), step=3)
    assert both.plain_tokens == alone.plain_tokens and len(both.plain) == len(alone.plain)
    for ours_micro, theirs in zip(alone.plain, both.plain, strict=True):
        assert torch.equal(ours_micro.labels, theirs.labels)
        assert ours_micro.plain_weight is not None and theirs.plain_weight is not None
        assert ours_micro.plain_weight / one.response_tokens == theirs.plain_weight / both.response_tokens
    assert both.tokens == 2 * one.tokens and both.padded_tokens == 2 * one.padded_tokens
