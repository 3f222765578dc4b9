"""Learning from sequences: a language model, and what its teacher said and believed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cache.canonical import canonical
from cache.opening import AnyView, open_view, reader_of, rows_of
from cache.views import CacheView
from configs.architecture import read_text_model
from student_train.feed.retokenised import Retokenised
from student_train.feed.steps import StepBatch, total_steps, training_batches
from student_train.feed.turns import Turns
from student_train.job import StepMetrics, TrainJob
from student_train.losses.metrics import SCORED_METRICS
from student_train.models.adapters import attach_adapters
from student_train.models.decoder import TORCH_DTYPES, Decoder, StudentModule, can_pack, load_decoder, normalised_rows
from student_train.models.export import ModelCard, export_student
from student_train.models.inside import Inside
from student_train.models.live_decoder import LiveDecoder
from student_train.models.tracing import note_attention
from student_train.training.feeds import SequenceFeeds
from student_train.training.learner import Learner, Step
from student_train.training.measuring import known_metrics, measure
from student_train.training.on_policy import OnPolicySteps
from student_train.training.readiness import require_ready
from student_train.training.selection import check_measured
from student_train.training.state import TrainingState
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup


class SequenceLearner(Learner):
    """See `Learner`: steps are those of a view of the cache, or of rollouts that the student writes meanwhile.

    Raises:
        DistillError: stage, data and student do not go together (`student_train.training.readiness`).
    """

    def __init__(self, job: TrainJob, *, group: WorkerGroup) -> None:
        self._job, self._group, self._stage = job, group, job.stage
        opened = [_open(path, job=job) for path in (job.train_view, job.dev_view) if path is not None]
        self._view, self._dev = opened[0].rows, None if job.dev_view is None else opened[1].rows
        texts = {each.rows.digest: each.texts for each in opened if each.texts is not None}
        require_ready(
            job.stage,
            view=self._view,
            dev=self._dev,
            model_dir=job.model_dir,
            vocab=job.vocab,
            micro_batch_tokens=job.settings.micro_batch_tokens,
        )
        decoder = load_decoder(
            job.model_dir,
            dtype=TORCH_DTYPES[job.stage.dtype],
            gradient_checkpointing=job.settings.gradient_checkpointing,
        )
        teacher = self._teacher()
        self._feeds = SequenceFeeds(
            job=job,
            group=group,
            cache=reader_of(
                [each.view for each in opened if each.view is not None], root=job.cache_root, identity=job.identity
            ),
            packs=self._packs(decoder, teacher=teacher),
            texts=texts,
        )
        if job.stage.lora is not None:
            attach_adapters(decoder.model, job.stage.lora)
        if job.stage.reads_attention:
            note_attention(decoder.model)
        self.module = StudentModule(
            decoder,
            stage=job.stage,
            vocab=self._rows(decoder),
            teacher=teacher,
            inside=self._inside(),
        )
        self.model = decoder.model
        self._turns = None if job.turns is None else Turns.load(job.turns)
        self.total_steps = total_steps(job.stage, view=self._view, turns=self._turns)
        self.data_digest = self._view.digest
        if self._turns is not None:
            self.data_digest = hashlib.sha256(canonical(self._view.digest, self._turns.digest)).hexdigest()
        self.measures = self._dev is not None
        self.from_teacher = job.stage.rollout is None and (job.stage.source == "teacher" or job.stage.reads_beliefs)
        self._on_policy: OnPolicySteps | None = None

    def steps(self, worker: StageWorker, *, first: int) -> Iterator[Step | None]:
        """See `Learner.steps`."""
        for batch in self._batches(worker, first=first):
            yield None if batch is None else self._step(batch)

    def measure(self, worker: StageWorker) -> dict[str, float] | None:
        """See `Learner.measure`.

        Raises:
            ConfigError: the stage selects by a metric that the held-out rows cannot give.
        """
        assert self._dev is not None
        batches = self._feeds.held_out_feed(self._dev).steps(self._feeds.forward_batches(self._dev))
        values = measure(worker, map(self._step, batches))
        if values is not None:
            check_measured(self._stage, values=values, dev=self._dev)
        return values

    def ended_early(self, measured: Sequence[StepMetrics]) -> bool:
        """See `Learner.ended_early`: on-policy, when what the student writes has collapsed."""
        return self._on_policy is not None and self._on_policy.collapsed

    def export(self, weights: Mapping[str, Tensor], *, state: TrainingState) -> None:
        """See `Learner.export`."""
        job = self._job
        card = ModelCard(
            teacher=job.teacher,
            licence=job.licence,
            combined=job.combined,
            start=job.start,
            view=self._view,
            stage=self._stage,
            steps=state.step,
            selected_step=state.selected_step,
            measured=state.measured,
        )
        export_student(self.model, weights, start=job.model_dir, out=job.output_dir, card=card, papers=job.papers)

    def _teacher(self) -> LiveDecoder | None:
        """The teacher that reads beside the student, where the stage asks for one."""
        job = self._job
        if not job.stage.reads_live:
            return None
        assert job.taught is not None, "a stage beside which a teacher reads has none"
        return LiveDecoder.load(
            job.taught, tokens=job.vocab, device=self._group.device, notes=job.stage.reads_attention
        )

    def _inside(self) -> Inside | None:
        """The terms about what is inside the teacher."""
        job = self._job
        if not job.stage.features:
            return None
        assert job.taught is not None
        sizes = read_text_model(job.model_dir).inside
        return Inside(job.stage.features, student=sizes, teacher=job.taught.sizes, seed=job.stage.seed)

    def _packs(self, decoder: Decoder, *, teacher: LiveDecoder | None) -> bool:
        """Whether short sequences share a row: both models keep them apart, and no table of a row's scores is read."""
        if self._job.settings.packing != "auto" or self._stage.reads_attention:
            return False
        return can_pack(decoder) and (teacher is None or teacher.packs)

    def _rows(self, decoder: Decoder) -> int:
        """Over how many rows of the output matrix the student is normalised, in training and on the held-out split."""
        if self._stage.teacher == "live":
            # Every probability is known, as from the cache where k is the whole vocabulary.
            return self._job.vocab
        if self._job.retokenised:
            # How many tokens of its own vocabulary the teacher's side holds says nothing about the student's.
            return decoder.vocab
        views = [view for view in (self._view, self._dev) if view is not None]
        return normalised_rows(decoder.vocab, vocab=self._job.vocab, k=max(view.k for view in views))

    def _batches(self, worker: StageWorker, *, first: int) -> Iterator[StepBatch | None]:
        if self._stage.rollout is not None:
            self._on_policy = OnPolicySteps(worker, feeds=self._feeds)
            return self._on_policy.steps(first)
        batches = training_batches(self._stage, view=self._view, first=first, steps=self.total_steps, turns=self._turns)
        return self._feeds.training_feed(self._view).steps(batches)

    def _step(self, batch: StepBatch) -> Step:
        live = self._stage.teacher == "live"
        names = SCORED_METRICS if live else known_metrics(batch, group=self._group)
        names = (*names, *(term.kind for term in self._stage.features))
        known = dict.fromkeys(names, batch.response_tokens)
        return Step(
            batches=batch.batches + batch.plain,
            places=batch.response_tokens,
            tokens=batch.tokens,
            # The model does not read the last token of a record.
            padding_share=1.0 - (batch.tokens - len(batch.keys)) / batch.padded_tokens,
            known=known | ({"pretrain": batch.plain_tokens} if batch.plain else {}),
            rows=[key[:12] for key in batch.keys],
            metrics=batch.metrics,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """A view as the student reads it, and what it is: the texts of a student of another tokenizer, or a kept view."""

    rows: CacheView
    texts: Retokenised | None = None
    view: AnyView | None = None


def _open(path: Path, *, job: TrainJob) -> _Opened:
    if job.retokenised:
        texts = Retokenised.load(path)
        return _Opened(texts.sizes, texts=texts)
    view = open_view(path)
    return _Opened(rows_of(view), view=view)
