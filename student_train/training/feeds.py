"""What one process reads of the cache while a stage learns from sequences: to learn from, and to measure on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cache.batches import Rows
from cache.protocols import RecordReader
from cache.views import CacheView
from student_train.feed.retokenised import Retokenised
from student_train.feed.steps import Feed, held_out_batches
from student_train.job import TrainJob
from student_train.losses.advantages import PolicyTerms
from student_train.worker_group import WorkerGroup


@dataclass(frozen=True, slots=True, eq=False)
class SequenceFeeds:
    """The feeds of a stage; `packs` says that its model keeps packed sequences apart.

    `texts` are what a student of another tokenizer reads, by the digests of the views that stand for them.
    """

    job: TrainJob
    group: WorkerGroup
    cache: RecordReader
    packs: bool
    texts: Mapping[str, Retokenised] = field(default_factory=dict)

    def training_feed(self, view: CacheView, *, terms: Sequence[PolicyTerms] | None = None) -> Feed:
        """The feed of rows to learn from; `terms` are those of each row, where a student sampled its tokens."""
        return self._feed(view, with_targets=self.job.stage.needs_cached, terms=terms)

    def held_out_feed(self, view: CacheView) -> Feed:
        """The feed of rows to measure on, with the teacher's beliefs wherever there are any, whatever is learned.

        A teacher at hand is asked afresh here too. Beliefs of a teacher of another tokenizer are about other tokens,
        and only what is learned of them is measured.
        """
        known = self.job.stage.method.needs_logprobs if view.digest in self.texts else view.k > 0
        return self._feed(view, with_targets=known and self.job.stage.teacher == "cache", terms=None)

    def forward_batches(self, view: CacheView) -> list[Rows]:
        """All rows of a view in order, in global batches of about one micro-batch a process."""
        return held_out_batches(view, tokens=self.job.settings.micro_batch_tokens * self.group.world_size)

    def _feed(self, view: CacheView, *, with_targets: bool, terms: Sequence[PolicyTerms] | None) -> Feed:
        return Feed(
            cache=self.cache,
            view=view,
            group=self.group,
            micro_batch_tokens=self.job.settings.micro_batch_tokens,
            with_targets=with_targets,
            packs=self.packs,
            terms=terms,
            texts=self.texts.get(view.digest),
        )
