"""A language model beside its student: what it is asked, term by term, against loops over sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from student_builders import PADDED, VOCAB, records, tiny_llama
from torch import Tensor

from cache.records import TeacherRecord
from configs.architecture import read_text_model
from configs.errors import ModelError
from configs.stages import StageConfig
from student_train import attention_mse, cosine, hidden_mse
from student_train.feed.microbatch import MicroBatch, collate
from student_train.job import TaughtInside
from student_train.losses.metrics import METRICS
from student_train.losses.targets import SparseTargets
from student_train.models.decoder import Decoder, StudentModule, load_decoder, read_batch
from student_train.models.inside import Inside
from student_train.models.live_decoder import LiveDecoder
from student_train.models.tracing import note_attention

CPU = torch.device("cpu")
PACKED = ((0, 1), (2, 3))
ALL_TERMS = ({"kind": "cosine", "weight": 2.0}, {"kind": "hidden_mse"}, {"kind": "attention_mse", "weight": 0.5})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, a teacher of other weights and one of another width."""
    folder = tmp_path_factory.mktemp("models")
    tiny_llama(folder / "student", seed=1)
    tiny_llama(folder / "teacher", seed=2, tied=False)
    tiny_llama(folder / "wide", seed=3, hidden=48, layers=4)
    return folder


def taught(folder: Path, *, dtype: str = "float32") -> TaughtInside:
    return TaughtInside(folder, "identity", dtype, read_text_model(folder).inside)


def module_of(
    student_dir: Path, at_hand: TaughtInside, *terms: dict[str, Any], **stage: Any
) -> tuple[StudentModule, Decoder]:
    """A student with a teacher at hand, as a stage makes it."""
    blocks = {"objective": "kd", "teacher": "live", "steps": 1, "features": terms} | stage
    made = StageConfig.model_validate(blocks)
    decoder = load_decoder(student_dir, dtype=torch.float32)
    live = LiveDecoder.load(at_hand, tokens=VOCAB, device=CPU, notes=made.reads_attention)
    if made.reads_attention:
        note_attention(decoder.model)
    inside = None
    if made.features:
        sizes = read_text_model(student_dir).inside
        inside = Inside(made.features, student=sizes, teacher=at_hand.sizes, seed=1)
    return StudentModule(decoder, stage=made, vocab=VOCAB, teacher=live, inside=inside), decoder


def batch_of(rows: list[TeacherRecord], *, layout: Any = None, **more: Any) -> MicroBatch:
    return replace(collate(rows, with_targets=False, layout=layout), **more)


def gradients(loss: Tensor, module: StudentModule) -> dict[str, Tensor]:
    names, weights = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, weights, allow_unused=True), strict=True))


def logits_of(model_dir: Path, row: TeacherRecord) -> Tensor:
    """What transformers says of one sequence, at its response tokens."""
    model = load_decoder(model_dir, dtype=torch.float32).model
    with torch.no_grad():
        whole = model(torch.from_numpy(row.token_ids[None].astype("int64"))).logits[0, :, :VOCAB]
    return torch.as_tensor(whole[row.prompt_len - 1 : -1])


@pytest.mark.parametrize("layout", [None, PACKED])
@pytest.mark.parametrize("settings", [{}, {"divergence": "jsd", "temperature": 2.0, "ce_weight": 0.4}])
def test_asked_afresh_or_from_the_cache_a_teacher_teaches_the_same(
    models: Path, layout: Any, settings: dict[str, Any]
) -> None:
    rows = records(4, seed=5)
    module, _ = module_of(models / "student", taught(models / "teacher"), **settings)
    loss, metrics = module(batch_of(rows, layout=layout))
    at_hand = gradients(loss, module)
    whole = torch.cat([logits_of(models / "teacher", row) for row in rows])
    cached = StudentModule(
        load_decoder(models / "student", dtype=torch.float32),
        stage=StageConfig.model_validate({"objective": "kd", "steps": 1} | settings),
        vocab=VOCAB,
    )
    expected, measured = cached(replace(collate(rows, with_targets=False), targets=SparseTargets.whole(whole)))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(metrics, measured, rtol=1e-4, atol=1e-4)
    for name, theirs in gradients(expected, cached).items():
        torch.testing.assert_close(at_hand[name], theirs, rtol=1e-3, atol=1e-5)


def test_a_teacher_that_is_the_student_teaches_nothing(models: Path) -> None:
    module, _ = module_of(models / "student", taught(models / "student"), *ALL_TERMS)
    loss, _ = module(batch_of(records(4, seed=5)))
    assert abs(float(loss.detach())) < 1e-5
    assert all(float(part.abs().max()) < 1e-5 for part in gradients(loss, module).values())


def loop(
    student: Decoder, teacher: Decoder, rows: list[TeacherRecord], projections: list[Tensor | None]
) -> dict[str, float]:
    """Each kind of term, sequence by sequence; `projections` are those of the pairs of `hidden_mse`, from the bottom."""
    sums = {"hidden_mse": 0.0, "attention_mse": 0.0, "cosine": 0.0}
    for row in rows:
        alone = batch_of([row])
        with torch.no_grad():
            ours, theirs = (read_batch(each.body, alone, layers=True) for each in (student, teacher))
        answers = slice(row.prompt_len - 1, None)
        top, last = len(ours.states) - 1, len(theirs.states) - 1
        for at, projection in enumerate(projections):
            matched = (2 * at * last + top) // (2 * top)
            sums["hidden_mse"] += float(
                hidden_mse(ours.states[at][0, answers], theirs.states[matched][0, answers], projection).sum()
            )
        if ours.states[-1].shape == theirs.states[-1].shape:
            sums["cosine"] += float(cosine(ours.states[-1][0, answers], theirs.states[-1][0, answers]).sum())
        there = torch.ones(alone.input_ids.shape, dtype=torch.bool)
        for at in range(1, top + 1 if ours.scores else 0):
            matched = (2 * at * last + top) // (2 * top)
            sums["attention_mse"] += float(attention_mse(ours.scores[at - 1], theirs.scores[matched - 1], there).sum())
    return sums


def test_terms_are_means_over_response_tokens_and_over_sequences(models: Path) -> None:
    rows = records(4, seed=5)
    module, student = module_of(
        models / "student", taught(models / "teacher"), *ALL_TERMS, objective="sft", source="gold", teacher="cache"
    )
    teacher = load_decoder(models / "teacher", dtype=torch.float32)
    note_attention(teacher.model)
    loss, metrics = module(batch_of(rows, per_text=3.0))
    plain = StudentModule(student, stage=StageConfig(objective="sft", source="gold", steps=1), vocab=VOCAB)
    sums = loop(student, teacher, rows, [None] * 4)
    found = dict(zip(METRICS, metrics.tolist(), strict=True))
    assert found["cosine"] == pytest.approx(sums["cosine"], rel=1e-4)
    assert found["hidden_mse"] == pytest.approx(sums["hidden_mse"], rel=1e-4)
    assert found["attention_mse"] == pytest.approx(3.0 * sums["attention_mse"], rel=1e-4)
    ce = float(plain(batch_of(rows))[0].detach())
    expected = ce + 2.0 * sums["cosine"] + sums["hidden_mse"] + 1.5 * sums["attention_mse"]
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4) == found["loss"]


def test_another_width_has_a_projection_a_pair_and_more_layers_are_spread(models: Path) -> None:
    rows = records(3, seed=6)
    module, student = module_of(models / "student", taught(models / "wide"), {"kind": "hidden_mse"})
    assert module.inside is not None
    projections = [each.detach() for each in module.inside.parameters()]
    assert [tuple(each.shape) for each in projections] == [(32, 48)] * 4
    _, metrics = module(batch_of(rows, layout=((0, 1, 2),)))
    sums = loop(student, load_decoder(models / "wide", dtype=torch.float32), rows, list(projections))
    assert float(metrics[METRICS.index("hidden_mse")]) == pytest.approx(sums["hidden_mse"], rel=1e-4)


def test_no_weight_of_the_teacher_is_part_of_the_student(models: Path) -> None:
    module, decoder = module_of(models / "student", taught(models / "wide"), {"kind": "hidden_mse", "layers": "top"})
    names = {name for name, _ in module.named_parameters()}
    assert names - {f"body.{name}" for name, _ in decoder.body.named_parameters()} == {"inside.projection_0"}
    loss, _ = module(batch_of(records(3, seed=6)))
    loss.backward()
    assert module._teacher is not None
    teacher: Any = module._teacher
    assert all(not each.requires_grad and each.grad is None for each in teacher._decoder.model.parameters())


def test_a_teacher_reads_in_its_own_dtype(models: Path) -> None:
    rows = batch_of(records(3, seed=6))
    exact, rounded = (
        module_of(models / "student", taught(models / "teacher", dtype=dtype))[0](rows)[0].detach()
        for dtype in ("float32", "bfloat16")
    )
    assert 1e-6 < abs(float(rounded / exact) - 1.0) < 0.05


def test_what_stands_at_padding_enters_nothing(models: Path) -> None:
    rows = records(4, seed=5)
    module, _ = module_of(models / "student", taught(models / "teacher"), *ALL_TERMS)
    batch = batch_of(rows)
    rubbish = replace(batch, input_ids=torch.where(batch.tokens, batch.input_ids, 11))
    torch.testing.assert_close(module(batch), module(rubbish))


def test_an_empty_batch_gives_zero_and_zero_gradients(models: Path) -> None:
    terms = ({"kind": "hidden_mse"}, {"kind": "attention_mse"})
    module, _ = module_of(models / "student", taught(models / "wide"), *terms)
    loss, metrics = module(batch_of([]))
    assert float(loss.detach()) == 0.0 and not metrics.any()
    assert all(not part.any() for part in gradients(loss, module).values() if part is not None)


def test_activations_computed_twice_give_the_same_gradients(models: Path) -> None:
    batch = batch_of(records(4, seed=5))
    module, decoder = module_of(models / "student", taught(models / "teacher"), *ALL_TERMS)
    once = gradients(module(batch)[0], module)
    decoder.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    decoder.model.train()
    for name, twice in gradients(module(batch)[0], module).items():
        torch.testing.assert_close(twice, once[name], rtol=1e-5, atol=1e-6)


def test_scores_for_rollouts_ask_nobody(models: Path) -> None:
    module, _ = module_of(models / "student", taught(models / "teacher"), {"kind": "cosine"})
    module._teacher = None
    logprobs, nothing = module(batch_of(records(3, seed=6)), scores=True)
    assert nothing is None and (logprobs < 0).all()


def test_a_teacher_that_is_not_there_is_named(models: Path) -> None:
    nowhere = replace(taught(models / "teacher"), directory=models / "nowhere")
    with pytest.raises(ModelError, match="nowhere cannot be loaded as a causal language model"):
        LiveDecoder.load(nowhere, tokens=VOCAB, device=CPU, notes=False)


def test_the_teacher_may_have_more_rows_than_there_are_tokens(models: Path) -> None:
    live = LiveDecoder.load(taught(models / "teacher"), tokens=VOCAB, device=CPU, notes=False)
    batch = batch_of(records(3, seed=6))
    known = live.targets(live.read(batch, layers=False).hidden).scored()
    assert known.k == VOCAB < PADDED
    assert known.logprobs is not None
    torch.testing.assert_close(known.logprobs.exp().sum(dim=1), torch.ones(len(batch.labels)))
