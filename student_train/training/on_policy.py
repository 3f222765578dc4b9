"""On-policy training: where the optimiser steps come from when the student writes its own sequences.

Before each rollout the current weights are published. The worker group then waits until the driver has sampled from
them, has let the teacher score every sequence once, and has committed both (`student_train.handoff.rollouts`). One
forward pass then gives the log-probability of every token under these weights. That, and not what the sampling engine
reports, is the q of the behaviour policy: it also covers the tokens that the teacher drew, and it is the arithmetic
that the loss will use. It is written down before the first step, so a resumed training uses the same numbers. Rewards,
importance weights and all passes over the rollout use these scores; the teacher is not asked again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from cache.views import CacheView
from configs.errors import TrainingError
from configs.rollouts import PolicyConfig
from student_train.feed.plain_text import PIECES, PlainFeed, PlainPieces
from student_train.feed.steps import Feed, StepBatch, joined
from student_train.handoff.rollouts import Rollout, RolloutExchange, minibatches
from student_train.handoff.weight_sync import weight_sync
from student_train.models.adapters import merge_adapters
from student_train.training.feeds import SequenceFeeds
from student_train.training.rollout_metrics import collapse_of, rollout_health, rollout_terms
from student_train.training.worker import StageWorker

logger = logging.getLogger(__name__)

_POLL_S = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class _Lesson:
    """A rollout with the feed that reads its sequences, and its metrics."""

    rollout: Rollout
    feed: Feed
    metrics: Mapping[str, float]


class OnPolicySteps:
    """The optimiser steps of a stage, rollout by rollout. All workers make every call together."""

    def __init__(self, worker: StageWorker, *, feeds: SequenceFeeds) -> None:
        job = feeds.job
        assert job.stage.rollout is not None
        self.collapsed = False
        self._worker, self._feeds, self._group = worker, feeds, worker.group
        self._stage, self._config = job.stage, job.stage.rollout
        self._exchange = RolloutExchange(job.work_dir)
        self._sync = weight_sync(
            worker.group,
            self._exchange,
            kind=job.settings.weight_sync,
            model=worker.model,
            start=job.model_dir,
        )
        self._plain = _plain_feed(feeds)

    def steps(self, first: int) -> Iterator[StepBatch | None]:
        """Step number `first` and those after it; None, and then no more, when asked to stop or after a collapse."""
        if self._group.leads:
            self._exchange.clean(side="policies")
        config = self._config
        for number in range(first // config.steps_each, config.count):
            begun = max(0, first - number * config.steps_each)
            lessons = self._lessons(number, begun=begun > 0)
            if lessons is None:
                yield None
                return
            feeds = [lesson.feed.steps(self._batches(lesson.rollout)[begun:]) for lesson in lessons]
            metrics = {} if begun else lessons[-1].metrics
            for step, parts in enumerate(zip(*feeds, strict=True), start=number * config.steps_each + begun):
                batch = joined(parts, metrics=metrics)
                yield batch if self._plain is None else self._plain.beside(batch, step=step)
                metrics = {}

    def _batches(self, rollout: Rollout) -> list[np.ndarray]:
        """The rows of every step that learns from a rollout, pass after pass."""
        config, seed = self._config, self._stage.seed
        if len(rollout.samples) < config.minibatches:
            raise TrainingError(
                f"rollout {rollout.number} holds {len(rollout.samples)} sequences, fewer than its {config.minibatches} "
                "minibatches: see the log of the engines for what became of the others"
            )
        return [
            rows
            for epoch in range(config.epochs)
            for rows in minibatches(rollout, seed=seed, epoch=epoch, parts=config.minibatches)
        ]

    def _lessons(self, number: int, *, begun: bool) -> list[_Lesson] | None:
        """What is learned from in phase `number`: earlier rollouts that are replayed, and last the new one.

        None when asked to stop, or when the student has collapsed. `begun` says that this phase goes on after a
        checkpoint: its weights were published and its rollout was scored before the first of its steps.
        """
        if not begun:
            # Engines that share this GPU wake as soon as they see new weights.
            self._group.release_kept_memory()
            self._publish(number)
        started = time.monotonic()
        if not self._wait(number):
            return None
        waited = time.monotonic() - started
        rollout = self._exchange.rollout(number)
        self._require_fresh(rollout)
        if not begun:
            self._keep_behaviour(rollout)
        newest = self._lesson(rollout, waited=waited)
        if (collapse := collapse_of(newest.metrics, config=self._config)) is not None:
            name, least = collapse
            logger.warning(
                "rollout %d: %s is %.4g, below %g; the stage ends here with its best weights so far",
                number,
                name,
                newest.metrics[name],
                least,
            )
            self.collapsed = True
            return None
        first = max(0, number - self._config.replay)
        return [*(self._lesson(self._exchange.rollout(earlier)) for earlier in range(first, number)), newest]

    def _publish(self, version: int) -> None:
        """Publish the current weights to the engines that sample, unless an earlier process did."""
        if version == 0 or self._group.any(self._group.leads and self._sync.holds(version)):
            return
        weights = self._worker.whole_weights()
        if weights is not None:
            lora = self._stage.lora
            self._sync.publish(version, weights if lora is None else merge_adapters(weights, lora))
        self._group.barrier()

    def _wait(self, number: int) -> bool:
        """Wait for a rollout; False when a request to stop came first."""
        while not self._group.any(self._group.leads and self._exchange.has_rollout(number)):
            if self._worker.stop.asked():
                return False
            if self._group.leads:
                self._sync.attend(number)
            time.sleep(_POLL_S)
        return True

    def _require_fresh(self, rollout: Rollout) -> None:
        """Refuse a rollout that was sampled from older weights than the stage allows.

        Raises:
            TrainingError: naming the age and the limit.
        """
        allowed = 1 if self._config.ahead else 0
        age = rollout.number - rollout.version
        if rollout.behaviour_logprobs is None and not 0 <= age <= allowed:
            raise TrainingError(
                f"rollout {rollout.number} was written by weights {rollout.version}, {age} rollouts old, but this "
                f"stage allows {allowed}: remove {self._exchange.rollouts} to have it sampled again"
            )

    def _keep_behaviour(self, rollout: Rollout) -> None:
        """Write down the log-probability of every token of a rollout under the weights that its steps start from."""
        logprobs = rollout.behaviour_logprobs
        if logprobs is None:
            logprobs = self._current_logprobs(rollout.view)
        if self._group.leads:
            self._exchange.keep_behaviour(rollout.number, logprobs)
        self._group.barrier()

    def _current_logprobs(self, view: CacheView) -> Float32[np.ndarray, " N"]:
        """The log-probability of every response token of a view under the current weights, row after row, in nats.

        Each process computes a share of the rows.
        """
        feed = self._feeds.training_feed(view)
        starts = np.cumsum(np.asarray(view.lengths) - np.asarray(view.prompt_len), dtype=np.int64)
        found = torch.zeros(view.response_tokens, dtype=torch.float32, device=self._group.device)
        for step in feed.steps(self._feeds.forward_batches(view)):
            for batch, rows in zip(step.batches, step.rows, strict=True):
                logprobs = self._worker.engine.logprobs(batch)
                places = [np.arange(starts[row - 1] if row else 0, starts[row]) for row in rows]
                if places:
                    found[torch.from_numpy(np.concatenate(places)).to(found.device)] = logprobs
        # Every place is filled by one process and zero on all others, so the sum is exact.
        summed: Float32[np.ndarray, " N"] = self._group.total(found).cpu().numpy()
        return summed

    def _lesson(self, rollout: Rollout, *, waited: float = 0.0) -> _Lesson:
        behaviour = self._exchange.read_behaviour(rollout.number)
        metrics = rollout_health(rollout, behaviour) | {"rollout/wait_s": waited} | dict(rollout.metrics)
        if not self._stage.method.weighs_samples:
            return _Lesson(rollout, self._feeds.training_feed(rollout.view), metrics)
        table = rollout_terms(
            rollout,
            behaviour,
            cache=self._feeds.cache,
            alpha=self._config.alpha,
            policy=self._stage.policy or PolicyConfig(),
        )
        metrics |= {f"rollout/{name}": value for name, value in table.statistics().items()}
        return _Lesson(rollout, self._feeds.training_feed(rollout.view, terms=table.rows()), metrics)


def _plain_feed(feeds: SequenceFeeds) -> PlainFeed | None:
    """The plain text that a stage with `pretrain` learns beside its rollouts."""
    job, pretrain = feeds.job, feeds.job.stage.pretrain
    if pretrain is None:
        return None
    pieces = PlainPieces.load(job.work_dir / PIECES, digest=job.plain_text)
    return PlainFeed(
        pieces=pieces,
        digest=pieces.digest,
        config=pretrain,
        seed=job.stage.seed,
        group=feeds.group,
        micro_batch_tokens=job.settings.micro_batch_tokens,
        packs=feeds.packs,
    )
