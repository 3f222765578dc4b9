"""Micro-batches against a naive reading of the records."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from student_builders import PADDED, VOCAB, record, records, tiny_llama

from cache.records import TeacherRecord
from cache.sampling import sample_rows
from configs.errors import DataError
from configs.stages import StageConfig
from student_train.feed.microbatch import collate
from student_train.feed.packing import lay_out
from student_train.losses.divergences import divergence
from student_train.losses.targets import SparseTargets
from student_train.models.decoder import Decoder, StudentModule, load_decoder

KD = StageConfig(objective="kd", steps=1, dtype="float32", ce_weight=0.25)
SEQKD = StageConfig(objective="seqkd", steps=1, dtype="float32")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return load_decoder(tiny_llama(tmp_path_factory.mktemp("student") / "model"), dtype=torch.float32)


def naive_loss(decoder: Decoder, rows: list[TeacherRecord], *, stage: StageConfig) -> torch.Tensor:
    """One row at a time, the whole sequence, the plain head, and a loop over response tokens."""
    total = torch.zeros(())
    for row in rows:
        logits = decoder.model(input_ids=torch.from_numpy(row.token_ids).long()[None]).logits[0, :, :VOCAB]
        for i in range(row.response_len):
            predicting = logits[row.prompt_len + i - 1][None]
            answer = torch.tensor([int(row.token_ids[row.prompt_len + i])])
            ce = torch.nn.functional.cross_entropy(predicting, answer)
            if stage.objective == "seqkd":
                total = total + ce
                continue
            assert row.topk_ids is not None and row.topk_logprobs is not None and row.tail_logmass is not None
            targets = SparseTargets(
                torch.from_numpy(row.topk_ids[i : i + 1]).long(),
                torch.from_numpy(row.topk_logprobs[i : i + 1]),
                torch.from_numpy(row.tail_logmass[i : i + 1]),
            )
            total = total + divergence(stage.divergence.kind, predicting, targets)[0] + stage.ce_weight * ce
    return total


def batched_loss(
    decoder: Decoder, rows: list[TeacherRecord], *, stage: StageConfig, tokens: int, packs: bool
) -> torch.Tensor:
    module = StudentModule(decoder, stage=stage, vocab=VOCAB)
    lengths = np.array([len(row.token_ids) - 1 for row in rows], dtype=np.int64)
    total = torch.zeros(())
    for layout in lay_out(lengths, tokens=tokens, packs=packs):
        loss, _ = module(collate(rows, with_targets=stage.objective == "kd", layout=layout))
        total = total + loss
    return total


def gradient(decoder: Decoder, loss: torch.Tensor) -> torch.Tensor:
    decoder.model.zero_grad()
    torch.autograd.backward(loss)
    return torch.cat([parameter.grad.flatten() for parameter in decoder.model.parameters()])


@pytest.mark.parametrize("stage", [KD, SEQKD], ids=["kd", "seqkd"])
@pytest.mark.parametrize(("tokens", "packs"), [(1, False), (40, False), (10_000, False), (40, True), (10_000, True)])
def test_loss_and_gradient_equal_the_naive_reading(
    decoder: Decoder, stage: StageConfig, tokens: int, packs: bool
) -> None:
    rows = records(7)
    expected = naive_loss(decoder, rows, stage=stage)
    loss = batched_loss(decoder, rows, stage=stage, tokens=tokens, packs=packs)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    ours, theirs = gradient(decoder, loss), gradient(decoder, expected)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_shift_is_by_one() -> None:
    row = record(5, prompt=3, response=4)
    batch = collate([record(6, prompt=9, response=4), row], with_targets=True)
    width = batch.input_ids.shape[1]
    assert width == 12
    assert batch.positions[4:].tolist() == [width + 2, width + 3, width + 4, width + 5]
    flat = batch.input_ids.flatten()
    assert flat[batch.positions[4:]].tolist() == row.token_ids[2:6].tolist()
    assert batch.labels[4:].tolist() == row.token_ids[3:7].tolist()
    assert batch.targets is not None and row.topk_ids is not None
    assert batch.targets.ids[4:].tolist() == row.topk_ids.tolist()


def test_packed_rows_stand_behind_each_other() -> None:
    rows = [record(6, prompt=9, response=4), record(5, prompt=3, response=4), record(7, prompt=2, response=3)]
    batch = collate(rows, with_targets=True, layout=((0,), (2, 1)))
    assert batch.input_ids.shape == (2, 12)
    assert batch.position_ids is not None
    assert batch.position_ids[1].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7]
    flat = batch.input_ids.flatten()
    assert flat[12:22].tolist() == [*rows[2].token_ids[:-1].tolist(), *rows[1].token_ids[:-1].tolist()]
    assert batch.labels.tolist() == [*rows[0].response_ids, *rows[2].response_ids, *rows[1].response_ids]
    assert flat[batch.positions[4:]].tolist() == [*rows[2].token_ids[1:4], *rows[1].token_ids[2:6]]
    assert batch.targets is not None and rows[2].topk_ids is not None
    assert batch.targets.ids[4:7].tolist() == rows[2].topk_ids.tolist()


def test_an_empty_batch_runs_the_whole_model_with_zero_gradients(decoder: Decoder) -> None:
    module = StudentModule(decoder, stage=KD, vocab=VOCAB)
    loss, metrics = module(collate([], with_targets=True))
    assert float(loss.detach()) == 0.0
    assert float(metrics.abs().max()) == 0.0
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert float(gradient(decoder, loss).abs().max()) == 0.0


def test_padding_of_the_embedding_is_masked(decoder: Decoder) -> None:
    assert decoder.vocab == PADDED > VOCAB
    rows = records(3)
    loss = batched_loss(decoder, rows, stage=SEQKD, tokens=1000, packs=False)
    with torch.no_grad():
        decoder.head[VOCAB:] += 50.0
    try:
        assert float(batched_loss(decoder, rows, stage=SEQKD, tokens=1000, packs=False).detach()) == float(
            loss.detach()
        )
    finally:
        with torch.no_grad():
            decoder.head[VOCAB:] -= 50.0


def test_text_without_logprobs_is_refused_for_kd() -> None:
    with pytest.raises(DataError, match="holds text alone"):
        collate([record(1, text_only=True)], with_targets=True)
    assert collate([record(1, text_only=True)], with_targets=False).targets is None


def test_different_k_in_one_batch_is_refused() -> None:
    with pytest.raises(DataError, match=r"keep \[4, 8\] tokens a position"):
        collate([record(1, k=4), record(2, k=8)], with_targets=True)


def test_draws_of_different_width_make_one_batch() -> None:
    whole = [record(1, k=VOCAB, response=3), record(2, k=VOCAB, response=2)]
    rows = [sample_rows(row, draws=draws, seed=0) for row, draws in zip(whole, (4, 40), strict=True)]
    batch = collate(rows, with_targets=True)
    assert batch.targets is not None and batch.targets.counts is not None
    assert batch.targets.k == rows[1].k > rows[0].k
    assert batch.targets.counts.sum(dim=1).tolist() == [4, 4, 4, 40, 40]
    for ids, counts, row in zip(batch.targets.ids[:3], batch.targets.counts[:3], range(3), strict=True):
        assert len(set(ids.tolist())) == len(ids)
        kept = rows[0].topk_ids
        assert kept is not None
        assert ids[counts > 0].tolist() == [token for token in kept[row].tolist() if token >= 0]


def test_draws_and_scores_do_not_mix() -> None:
    with pytest.raises(DataError, match="partly drawn and partly scored"):
        collate([sample_rows(record(1, k=VOCAB), draws=4, seed=0), record(2)], with_targets=True)
