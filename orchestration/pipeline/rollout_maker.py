"""The rollouts of one on-policy stage: written by two engines as weights are published, scored once, and cached.

The student's engine takes over the published weights, both engines write sequences from the mixture
(`orchestration.rollouts.mixture`), the teacher scores each once, and the scored sequences go into the teacher's cache
as rollouts, with the version of the weights that wrote them. The worker group learns from a pinned view of them. An
engine that dies makes the whole rollout void; it is written anew, from the same noise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from configs import CacheError, ConfigError, DistillConfig, EngineError
from configs.rollouts import RolloutConfig
from orchestration.fill.budgets import require_budget
from orchestration.fill.ledger import Ledger
from orchestration.inputs.models import open_model
from orchestration.inputs.prompts import PromptIds, PromptSet
from orchestration.inputs.teachers import identity_of
from orchestration.pipeline.chain import Link
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.lessons import Lesson
from orchestration.plan.requests import rollout_tokens
from orchestration.rollouts.mixture import Tally, sample_rollout
from orchestration.rollouts.records import chosen, described, held_out_reverse_kl, sampling_metrics
from orchestration.rollouts.sequence import RolloutPrompt, Sampled, Sampling
from orchestration.rollouts.shelf import RolloutShelf
from student_train.handoff.broadcast import Offer
from student_train.handoff.rollouts import Rollout, RolloutExchange

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a rollout is begun before a dying engine ends the run."""

GIB = 2**30


class RolloutMaker:
    """Makes the rollouts of one stage, one after the other, whenever the next one is due."""

    def __init__(
        self,
        link: Link,
        *,
        config: DistillConfig,
        ledger: Ledger,
        compute: Compute,
        lesson: Lesson,
        prompts: PromptSet,
    ) -> None:
        assert link.stage.rollout is not None
        self._experiment, self._ledger, self._link, self._lesson = config, ledger, link, lesson
        self._config: RolloutConfig = link.stage.rollout
        self._former = former_rollouts(self._config, lesson=lesson)
        self._by_student = max(1, round(self._config.share * self._config.prompts))
        self._train = PromptIds(prompts.splits["train"])
        self._dev = PromptIds(prompts.splits["dev"])[: self._config.dev_prompts]
        self._exchange = RolloutExchange(link.work_dir)
        self._exchange.clean(side="rollouts")
        if self._experiment.runtime.training.weight_sync == "broadcast":
            # What a worker group before this one offered went with it.
            self._exchange.withdraw_policies()
        self._shelf = RolloutShelf(
            self._experiment.runtime.cache_root, identity=lesson.teacher.identity.digest(), exchange=self._exchange
        )
        self._next = 0
        self._seconds = dict.fromkeys(("sampling", "scoring", "syncing"), 0.0)
        start = open_model(link.start_dir, label=link.origin)
        self._start = identity_of(start, config=self._experiment, dtype=link.stage.dtype)
        self._student, self._teacher = compute.rollout_pools(student=start, learner=self._start, teacher=lesson.teacher)

    def make_due(self) -> None:
        """Make the next rollout if the weights that are to write it are there. Ends the engines after the last one.

        Raises:
            EngineError: engines died again and again.
            BudgetReached: the next one may take more than is left of the experiment's budgets.
        """
        config = self._config
        while self._next < config.count and self._exchange.has_rollout(self._next):
            self._next += 1
        if self._next == config.count:
            self.close()
            return
        version = max(0, self._next - 1) if config.ahead else self._next
        if not self._exchange.has_policy(version):
            return
        rollout = self._former[self._next] if self._former else self._written(version)
        # From the commit on the worker group trains, perhaps on the GPUs of these engines. `_bring` wakes them.
        self._teacher.sleep()
        self._student.sleep()
        self._exchange.commit(rollout)

    def close(self) -> None:
        """End the engines."""
        self._teacher.release()
        self._student.release()

    def shares(self, seconds: float) -> dict[str, float]:
        """The shares of a stage of `seconds` that sampling, scoring and bringing weights to the engine took."""
        return {f"rollout/{name}_share": spent / max(seconds, 1e-9) for name, spent in self._seconds.items()}

    def _written(self, version: int) -> Rollout:
        for attempt in range(1, ATTEMPTS + 1):
            self._require_budget()
            try:
                return self._write(version)
            except EngineError as error:
                self.close()
                if attempt == ATTEMPTS:
                    raise
                logger.warning("rollout %d is void, an engine failed (%s): it is written anew", self._next, error)
        raise AssertionError("the last attempt returns or raises")

    def _require_budget(self) -> None:
        config = self._experiment
        most = rollout_tokens(self._config, longest_prompt=config.data.max_prompt_tokens) // self._config.count
        purpose = f"rollout {self._next} of {self._config.count}"
        require_budget(config.budgets, spent=self._ledger.counts(), tokens=most, purpose=purpose)

    def _write(self, version: int) -> Rollout:
        """Sample, score and cache one rollout."""
        config, number, seed = self._config, self._next, self._link.stage.seed
        sync_seconds = self._bring(version)
        logger.info("rollout %d is being written by weights %d", number, version)
        asked = chosen(len(self._train), number=number, count=self._by_student, seed=seed)
        samples, tally = self._sample([self._train[at] for at in asked], alpha=config.alpha, version=version)
        if tally.failures:
            logger.warning("rollout %d lacks sequences that an engine could not continue: %s", number, tally.failures)
        if not samples:
            raise EngineError(f"no sequence of rollout {number} could be written: {next(iter(tally.failures))}")
        answers, _ = self._sample(self._dev, alpha=0.0, version=version, held_out=True)
        self._seconds["sampling"] += tally.sampling_seconds
        self._seconds["scoring"] += tally.scoring_seconds
        self._seconds["syncing"] += sync_seconds
        written = sum(each.record.response_len for each in samples)
        metrics = sampling_metrics(tally, written=written, sync_seconds=sync_seconds) | held_out_reverse_kl(answers)
        return self._cached(samples, version=version, metrics=metrics)

    def _bring(self, version: int) -> float:
        """Give the student's engine the published weights; the seconds that took, without its start."""
        self._teacher.start()
        self._student.start()
        started = time.monotonic()
        directory = self._link.start_dir if version == 0 else self._exchange.policy(version)
        if (offer := Offer.read(directory)) is None:
            policy = open_model(directory, label=f"{self._link.origin}, rollout {version}")
            identity = identity_of(policy, config=self._experiment, dtype=self._link.stage.dtype, remember=version == 0)
            self._student.load(directory, identity)
        else:
            identity = replace(self._start, weights_sha256=offer.weights_sha256)
            with self._exchange.meeting(version, receivers=self._student.processes) as meeting:
                self._student.receive(meeting, offer.tensors, identity)
            logger.info("weights %d were sent to %d processes", version, self._student.processes)
        return time.monotonic() - started

    def _sample(
        self, prompts: Sequence[tuple[int, ...]], *, alpha: float, version: int, held_out: bool = False
    ) -> tuple[list[Sampled], Tally]:
        def spend(tokens: int) -> None:
            self._ledger.add(**{"evaluation" if held_out else "rollout": tokens})

        return sample_rollout(
            [RolloutPrompt(ids, number=number) for number, ids in enumerate(prompts)],
            student=self._student,
            teacher=self._teacher,
            sampling=Sampling(
                alpha=alpha,
                seed=(self._link.stage.seed, self._next, int(held_out)),
                version=version,
                max_new_tokens=self._config.max_new_tokens,
                stop_ids=self._lesson.teacher.files.stop_ids,
                k=self._experiment.teacher.top_k,
            ),
            spend=spend,
        )

    def _cached(self, samples: Sequence[Sampled], *, version: int, metrics: dict[str, float]) -> Rollout:
        """Put what the teacher scored into its cache, and pin it with the teacher's own sequences if it has a share."""
        lesson, config, number, teacher = self._lesson, self._config, self._next, self._experiment.teacher
        lesson.cache.put(
            # How a sequence ended belongs to who wrote it; to the cache of the teacher it was given.
            [replace(each.record, finish="given") for each in samples],
            vocab=lesson.teacher.files.vocab,
            encoding=teacher.encoding,
            licence=teacher.licence_as_used,
            provenance=lesson.teacher.provenance(self._experiment),
            rollout=self._link.digest[:12],
        )
        keys = [each.record.key for each in samples]
        own = lesson.views[self._link.stage.train_view].keys
        by_teacher, seed = config.prompts - self._by_student, self._link.stage.seed
        if by_teacher:
            places = chosen(len(own), number=number, count=by_teacher, seed=seed, of="teacher")
            keys += [own[at].tobytes() for at in places]
        dataset = f"rollout-{self._link.digest[:12]}-{number:03d}"
        view = lesson.cache.view(keys, dataset=dataset, k=teacher.top_k)
        self._hold_to_quota()
        return described(keys, view=view, sampled=samples, number=number, version=version, metrics=metrics)

    def _hold_to_quota(self) -> None:
        """Let go of rollouts that this stage has learned from, then of what is beyond the quota."""
        # The worker group may still read the one before this, and those that it replays.
        self._shelf.let_go(before=self._next - 1 - self._config.replay)
        logger.info("rollouts in the cache: %s", self._shelf.hold_to(int(self._config.quota_gib * GIB)))


def former_rollouts(config: RolloutConfig, *, lesson: Lesson) -> list[Rollout]:
    """The rollouts of another training that a stage learns from, pinned anew, with what its weights gave every token.

    Empty where the stage has its own written.

    Raises:
        ConfigError: they are not there, another teacher scored them, or the cache does not hold their scores any more.
    """
    _require_replayable(config)
    if config.replay_from is None:
        return []
    exchange, here = RolloutExchange(config.replay_from), lesson.teacher.identity.digest()
    found = []
    for number in range(config.count):
        former = exchange.rollout(number)
        if former.view.identity != here:
            raise ConfigError(
                f"rollout.replay_from={config.replay_from} was scored by the teacher {former.view.identity[:12]}, this "
                f"stage learns from {here[:12]}: name rollouts of this teacher, or remove replay_from"
            )
        keys = [key.tobytes() for key in former.view.keys]
        try:
            view = lesson.cache.view(keys, dataset=former.view.dataset, k=former.view.k)
        except CacheError as error:
            raise ConfigError(
                f"rollout.replay_from={config.replay_from}: scores of rollout {number} have left the cache since "
                f"({error}): remove replay_from to have rollouts written"
            ) from error
        behaviour = exchange.read_behaviour(number)
        found.append(replace(former, view=view, behaviour_logprobs=behaviour, metrics={}))
    return found


def _require_replayable(config: RolloutConfig) -> None:
    """Refuse rollouts of another training that are not there.

    Raises:
        ConfigError: naming how many there are.
    """
    if config.replay_from is None:
        return
    former = RolloutExchange(config.replay_from)
    held = sum(former.has_rollout(number) for number in range(config.count))
    if held < config.count:
        raise ConfigError(
            f"rollout.replay_from={config.replay_from} holds {held} of the rollout.count={config.count} rollouts: "
            "lower count, or name rollouts/<student> of the run directory that wrote them"
        )
