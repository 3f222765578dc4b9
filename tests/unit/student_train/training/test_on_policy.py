"""On-policy stages in real worker groups: the weights that are published, the numbers that are kept, and every way to go on."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from group_worker import Ask, Death, Lost, Trained, run_groups
from rollout_writer import Writer
from safetensors.torch import load_file
from student_builders import tiny_llama
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from training_jobs import assert_same_bits, make_job, variant, weights_of
from transformers import AutoModelForCausalLM

from cache.store import TeacherCache
from configs.rollouts import PolicyConfig
from student_train.feed.plain_text import PIECES, PlainPieces
from student_train.handoff.broadcast import Offer
from student_train.handoff.rollouts import Rollout, RolloutExchange
from student_train.job import TrainJob
from student_train.losses.minillm import MinillmLoss, PlainText, SampledResponses, minillm_loss
from student_train.losses.targets import SparseTargets

pytestmark = pytest.mark.group

ROLLOUT = {"count": 3, "prompts": 6, "epochs": 2, "minibatches": 2, "alpha": 0.3, "max_new_tokens": 5}
WEIGHT = 0.5
PRETRAIN = {"path": "text.jsonl", "weight": WEIGHT, "tokens": 24}
STAGE = {
    "objective": "minillm",
    "rollout": ROLLOUT,
    "pretrain": PRETRAIN,
    "epochs": None,
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "learning_rate": 2e-3,
    "schedule": "constant",
}
TEXT = PlainPieces.cut(
    [range(at, at + size) for at, size in ((5, 2), (20, 19), (50, 31), (8, 9), (60, 14))], max_tokens=12
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A training of this module: the fields that it changes, and what else each of its calls in turn takes."""

    fields: dict[str, Any] = field(default_factory=dict)
    rollout: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    writer: dict[str, int] = field(default_factory=dict)
    calls: tuple[dict[str, Any], ...] = ({},)


class Runs:
    """What became of every training; each began from the same weights and had a writer of its own."""

    def __init__(self, folder: Path, plans: dict[str, Plan]) -> None:
        self.jobs: dict[str, TrainJob] = {}
        self.ended: dict[str, list[list[Any]]] = {}
        self.writers: dict[str, Writer] = {}
        base, teacher = make_job(folder), tiny_llama(folder / "teacher", seed=5)
        calls, names = [], []
        with ExitStack() as stack:
            for name, plan in plans.items():
                stage = STAGE | {"rollout": ROLLOUT | plan.rollout} | plan.fields
                job = variant(base, folder / name, stage=stage, settings=plan.settings)
                self.jobs[name] = job = replace(job, plain_text=TEXT.digest)
                TEXT.save(job.work_dir / PIECES)
                self.writers[name] = stack.enter_context(Writer(job, teacher, **plan.writer))
                calls += [("train_all", {"jobs": [(job, extra)]}, 2) for extra in plan.calls]
                names += [name] * len(plan.calls)
            for name, ended in zip(names, run_groups(calls, folder=folder / "group"), strict=True):
                self.ended.setdefault(name, []).append(ended)

    def last(self, name: str) -> Trained:
        leader: Trained = self.ended[name][-1][0][0]
        return leader


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(
        tmp_path_factory.mktemp("on-policy"),
        {
            "plain": Plan(),
            # Sends its weights, too, so that one training more shows both.
            "stopped": Plan(settings={"weight_sync": "broadcast"}, calls=({"ask": Ask(after=5)}, {})),
            "one_step": Plan(
                fields={"pretrain": PRETRAIN | {"tokens": 4096}, "select": "last"},
                rollout={"count": 1, "epochs": 1, "minibatches": 1},
            ),
        },
    )


@pytest.fixture(scope="module")
def more_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(
        tmp_path_factory.mktemp("more-on-policy"),
        {
            "plain": Plan(),
            "sharded": Plan(settings={"zero_stage": 3}),
            "sharded_and_sent": Plan(settings={"zero_stage": 3, "weight_sync": "broadcast"}),
            "killed": Plan(calls=({"death": Death(after=6)}, {})),
            "killed_while_it_saves": Plan(
                calls=({"death": Death(after=4, ranks=(0,), failpoint="checkpoint-before-rename")}, {})
            ),
            "ahead": Plan(rollout={"ahead": True}, writer={"ahead": 1}),
            "stale": Plan(writer={"versions_off": 1}),
            "collapsed": Plan(rollout={"least_tokens": 5.5}),
            "replayed": Plan(rollout={"replay": 1}),
            "on_policy_kd": Plan(
                # As much plain text as elsewhere would drown a divergence that is small from the start.
                fields={"objective": "kd", "divergence": "reverse_kl", "pretrain": PRETRAIN | {"weight": 0.03}}
            ),
            "adapters": Plan(fields={"lora": {"rank": 4}}),
        },
    )


def require_own_rollouts(trained: Trained) -> None:
    """The writer computed log q itself, from what was published: the trainer finds the same in its own weights."""
    assert trained.result.steps == 12
    assert trained.values("rollout/staleness") == [0.0, 0.0, 0.0]
    assert max(trained.values("rollout/engine_gap")) < 1e-5
    assert trained.values("rollout/scoring_passes") == [1.0, 1.0, 1.0]


def test_every_rollout_is_written_by_the_weights_of_its_moment(runs: Runs) -> None:
    require_own_rollouts(runs.last("plain"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sharded", "sharded_and_sent", "adapters"])
def test_weights_in_shards_or_adapters_are_published_whole(more_runs: Runs, name: str) -> None:
    require_own_rollouts(more_runs.last(name))


def test_published_weights_are_a_plain_model_with_its_head_stored_once(runs: Runs) -> None:
    exchange = RolloutExchange(runs.jobs["plain"].work_dir)
    stored = load_file(exchange.policy(2) / "model.safetensors")
    assert "lm_head.weight" not in stored
    assert AutoModelForCausalLM.from_pretrained(exchange.policy(2)).config.tie_word_embeddings
    assert not exchange.policy(0).exists()


def reference(job: TrainJob, rollout: Rollout) -> tuple[MinillmLoss, dict[str, Tensor]]:
    """The loss of a whole rollout and the whole text in one step, from the written form, and its gradient."""
    model = AutoModelForCausalLM.from_pretrained(job.model_dir, dtype=torch.float64)
    (records,) = TeacherCache.open(job.cache_root, job.identity).iter_blocks(
        rollout.view, [np.arange(len(rollout.view))]
    )

    def laid_out(rows: list[Any]) -> Tensor:
        return pad_sequence([torch.as_tensor(np.asarray(row)) for row in rows], batch_first=True)

    def logits_of(ids: np.ndarray, first: int) -> Tensor:
        return model(torch.from_numpy(ids[None].astype(np.int64))).logits[0, first - 1 : -1]

    logits = pad_sequence([logits_of(each.token_ids, each.prompt_len) for each in records], batch_first=True)
    ids = laid_out([each.response_ids.astype(np.int64) for each in records])
    mask = laid_out([np.ones(each.response_len, dtype=bool) for each in records])
    known = SparseTargets(
        laid_out([each.topk_ids.astype(np.int64) for each in records]).flatten(0, 1),
        laid_out([each.topk_logprobs for each in records]).double().flatten(0, 1),
        laid_out([each.tail_logmass for each in records]).double().flatten(),
    )
    pieces = [TEXT.record(at).token_ids for at in range(len(TEXT.ends))]
    text = PlainText(
        logits=pad_sequence([logits_of(piece, 1) for piece in pieces], batch_first=True),
        ids=laid_out([piece[1:].astype(np.int64) for piece in pieces]),
        mask=laid_out([np.ones(len(piece) - 1, dtype=bool) for piece in pieces]),
        weight=WEIGHT,
    )
    sampled = SampledResponses(
        ids=ids,
        mask=mask,
        old_logprobs=logits.detach().log_softmax(dim=2).gather(2, ids[..., None])[..., 0],
        teacher_logprobs=laid_out([each.target_logprobs for each in records]).double(),
        alpha=ROLLOUT["alpha"],
    )
    loss = minillm_loss(logits, sampled, known, policy=PolicyConfig(), pretrain=text)
    loss.total.backward()
    return loss, {name: value.grad for name, value in model.named_parameters()}


def test_the_first_step_is_the_reference_loss_on_rollout_and_plain_text(runs: Runs) -> None:
    job, trained = runs.jobs["one_step"], runs.last("one_step")
    loss, gradient = reference(job, runs.writers["one_step"].written[0])
    assert trained.values("train/loss") == pytest.approx([float((loss.policy + loss.single).detach())], rel=1e-4)
    assert trained.values("train/pretrain") == pytest.approx([float(loss.pretrain.detach()) / WEIGHT], rel=1e-5)
    norm = float(torch.stack([grad.norm() for grad in gradient.values()]).norm())
    assert trained.values("train/grad_norm") == pytest.approx([norm], rel=1e-4)
    # The first step of Adam goes the same way everywhere, whatever the size of the gradient.
    before, after = load_file(job.model_dir / "model.safetensors"), weights_of(job)
    for name, grad in gradient.items():
        clear = grad.abs() > 1e-5
        moved = (after[name] - before[name]).double()[clear]
        torch.testing.assert_close(moved, -job.stage.learning_rate * grad[clear].sign(), rtol=0.01, atol=1e-6)


def test_plain_text_is_learned_in_every_step(runs: Runs) -> None:
    losses = runs.last("plain").values("train/pretrain")
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_a_training_that_was_stopped_and_sends_its_weights_ends_with_the_same_bits(runs: Runs) -> None:
    assert not runs.ended["stopped"][0][0][0].result.finished
    assert Offer.read(RolloutExchange(runs.jobs["stopped"].work_dir).policy(2)) is not None
    assert_same_bits(weights_of(runs.jobs["stopped"]), weights_of(runs.jobs["plain"]))
    steps = [at.step for at in runs.last("stopped").reported if "train/loss" in at.values]
    assert steps[-1] == 12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["killed", "killed_while_it_saves"])
def test_a_training_that_was_killed_ends_with_the_same_bits(more_runs: Runs, name: str) -> None:
    assert any(isinstance(one, Lost) for one in more_runs.ended[name][0])
    assert_same_bits(weights_of(more_runs.jobs[name]), weights_of(more_runs.jobs["plain"]))


@pytest.mark.slow
def test_a_rollout_ahead_is_one_version_old(more_runs: Runs) -> None:
    assert more_runs.last("ahead").values("rollout/staleness") == [0.0, 1.0, 1.0]


@pytest.mark.slow
def test_older_weights_than_allowed_are_refused(more_runs: Runs) -> None:
    assert "written by weights -1, 1 rollouts old, but this stage allows 0" in str(more_runs.last("stale").ended)


@pytest.mark.slow
def test_a_collapse_ends_the_stage_with_the_best_weights_so_far(more_runs: Runs) -> None:
    trained = more_runs.last("collapsed")
    assert trained.result.finished and trained.result.steps == 0
    assert any("rollout/response_tokens is" in line and "below 5.5" in line for line in trained.log)


@pytest.mark.slow
def test_former_rollouts_are_learned_from_beside_the_newest(more_runs: Runs) -> None:
    tokens = np.diff([0.0, *more_runs.last("replayed").values("train/tokens")])
    once = np.diff([0.0, *more_runs.last("plain").values("train/tokens")])
    assert np.array_equal(tokens[:4], once[:4])
    assert tokens[4:].mean() > 1.7 * once[4:].mean()


@pytest.mark.slow
def test_a_divergence_on_the_students_own_sequences(more_runs: Runs) -> None:
    trained = more_runs.last("on_policy_kd")
    assert trained.result.steps == 12
    passes = np.array(trained.values("train/divergence")).reshape(3, 2, 2).mean(axis=2)
    # Between rollouts it differs with the sequences; of the same ones the second pass finds less than the first.
    assert (passes[:, 1] < passes[:, 0]).all()
    assert not trained.values("train/policy")
    losses = trained.values("train/pretrain")
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_what_the_weights_gave_every_token_is_kept_before_they_change(runs: Runs) -> None:
    job = runs.jobs["plain"]
    exchange = RolloutExchange(job.work_dir)
    for rollout in runs.writers["plain"].written:
        kept = exchange.read_behaviour(rollout.number)
        own = ~rollout.drawn_by_teacher
        np.testing.assert_allclose(kept[own], rollout.engine_logprobs[own], atol=1e-5)
        assert np.isfinite(kept).all()


def test_former_rollouts_are_known_by_what_they_hold(runs: Runs, tmp_path: Path) -> None:
    job = runs.jobs["plain"]
    shutil.copytree(job.work_dir / "rollouts", tmp_path / "rollouts")
    shutil.copytree(job.work_dir / "policies", tmp_path / "policies")
    here, there = RolloutExchange(job.work_dir), RolloutExchange(tmp_path)
    assert there.digest(3) == here.digest(3) != here.digest(2)
    there.keep_behaviour(1, here.read_behaviour(1) - 1e-3)
    assert there.digest(3) != here.digest(3)
