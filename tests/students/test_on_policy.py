"""On-policy stages in real gangs: the weights that are published, the numbers that are kept, and every way to go on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gang_worker import Ask, Death, Lost, Trained, run_gangs
from rollout_writer import Writer
from safetensors.torch import load_file
from student_builders import VOCAB, tiny_llama
from training_jobs import assert_same_bits, make_job, variant, weights_of
from transformers import AutoModelForCausalLM

from cache.store import TeacherCache
from configs.rollouts import PolicyConfig
from student_train.job import TrainJob
from student_train.minillm import minillm_loss
from student_train.rollouts import RolloutBox
from student_train.targets import SparseTargets

ROLLOUT = {"count": 3, "prompts": 6, "epochs": 2, "minibatches": 2, "alpha": 0.3, "max_new_tokens": 5}
STAGE = {
    "objective": "minillm",
    "rollout": ROLLOUT,
    "epochs": None,
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "learning_rate": 2e-3,
    "schedule": "constant",
}


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
                self.jobs[name] = job = variant(base, folder / name, stage=stage, settings=plan.settings)
                self.writers[name] = stack.enter_context(Writer(job, teacher, **plan.writer))
                calls += [("train_all", {"jobs": [(job, extra)]}, 2) for extra in plan.calls]
                names += [name] * len(plan.calls)
            for name, ended in zip(names, run_gangs(calls, folder=folder / "gang"), strict=True):
                self.ended.setdefault(name, []).append(ended)

    def last(self, name: str) -> Trained:
        leader: Trained = self.ended[name][-1][0][0]
        return leader


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(
        tmp_path_factory.mktemp("on-policy"),
        {"plain": Plan(), "stopped": Plan(calls=({"ask": Ask(after=4)}, {}))},
    )


@pytest.fixture(scope="module")
def more_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(
        tmp_path_factory.mktemp("more-on-policy"),
        {
            "plain": Plan(),
            "sharded": Plan(settings={"zero_stage": 3}),
            "killed": Plan(calls=({"death": Death(after=6)}, {})),
            "killed_while_it_saves": Plan(
                calls=({"death": Death(after=4, ranks=(0,), failpoint="checkpoint-before-rename")}, {})
            ),
            "ahead": Plan(rollout={"ahead": True}, writer={"ahead": 1}),
            "stale": Plan(writer={"versions_off": 1}),
            "collapsed": Plan(rollout={"least_tokens": 5.5}),
            "replayed": Plan(rollout={"replay": 1}),
            "on_policy_kd": Plan(fields={"objective": "kd", "divergence": "reverse_kl"}),
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
@pytest.mark.parametrize("name", ["sharded", "adapters"])
def test_weights_in_shards_or_adapters_are_published_whole(more_runs: Runs, name: str) -> None:
    require_own_rollouts(more_runs.last(name))


def test_published_weights_are_a_plain_model_with_its_head_stored_once(runs: Runs) -> None:
    box = RolloutBox(runs.jobs["plain"].work_dir)
    stored = load_file(box.policy(2) / "model.safetensors")
    assert "lm_head.weight" not in stored
    assert AutoModelForCausalLM.from_pretrained(box.policy(2)).config.tie_word_embeddings
    assert not box.policy(0).exists()


def test_the_first_step_is_the_reference_loss(runs: Runs) -> None:
    job, rollout = runs.jobs["plain"], runs.writers["plain"].written[0]
    first = runs.last("plain").values("train/loss")[:2]
    model = AutoModelForCausalLM.from_pretrained(job.model_dir, dtype=torch.float64)
    (records,) = TeacherCache.open(job.cache_root, job.identity).iter_blocks(
        rollout.view, [np.arange(len(rollout.view))]
    )
    width = max(record.response_len for record in records)
    logits = torch.zeros(len(records), width, VOCAB, dtype=torch.float64)
    ids = torch.zeros(len(records), width, dtype=torch.int64)
    old, teacher = torch.zeros(len(records), width).double(), torch.zeros(len(records), width).double()
    mask = torch.zeros(len(records), width, dtype=torch.bool)
    known = SparseTargets.whole(torch.zeros(len(records) * width, VOCAB))
    kept, scores, tails = known.ids[:, :8].clone(), torch.full((len(mask) * width, 8), -9.0), torch.zeros(mask.numel())
    for row, record in enumerate(records):
        length = record.response_len
        with torch.no_grad():
            every = model(torch.from_numpy(record.token_ids[None].astype(np.int64))).logits[0, :, :VOCAB]
        logits[row, :length] = every[record.prompt_len - 1 : -1]
        ids[row, :length] = torch.from_numpy(record.response_ids.astype(np.int64))
        old[row, :length] = logits[row, :length].log_softmax(dim=1).gather(1, ids[row, :length, None])[:, 0]
        teacher[row, :length] = torch.from_numpy(record.target_logprobs).double()
        mask[row, :length] = True
        places = slice(row * width, row * width + length)
        kept[places] = torch.from_numpy(record.topk_ids.astype(np.int64))
        scores[places] = torch.from_numpy(record.topk_logprobs)
        tails[places] = torch.from_numpy(record.tail_logmass)
    loss = minillm_loss(
        logits,
        response_ids=ids,
        mask=mask,
        old_logprobs=old,
        teacher_logprobs=teacher,
        targets=SparseTargets(kept, scores.double(), tails.double()),
        alpha=ROLLOUT["alpha"],
        policy=PolicyConfig(),
    )
    # Both halves of the first pass: the second half already met weights that one step had moved.
    assert first[0] == pytest.approx(float(loss.total), rel=0.6)
    assert np.mean(first) == pytest.approx(float(loss.total), rel=0.1)


def test_a_training_that_was_stopped_ends_with_the_same_bits(runs: Runs) -> None:
    assert not runs.ended["stopped"][0][0][0].result.finished
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
    divergence = trained.values("train/divergence")
    assert divergence[-1] < divergence[0]
    assert not trained.values("train/policy")


def test_what_the_weights_gave_every_token_is_kept_before_they_change(runs: Runs) -> None:
    job = runs.jobs["plain"]
    box = RolloutBox(job.work_dir)
    for rollout in runs.writers["plain"].written:
        kept = box.read_behaviour(rollout.number)
        own = ~rollout.drawn_by_teacher
        np.testing.assert_allclose(kept[own], rollout.engine_logprobs[own], atol=1e-5)
        assert np.isfinite(kept).all()
