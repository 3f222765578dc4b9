"""How fast a warm engine serves a model, and what memory and energy that takes.

Time to first token, time a token and tokens a second for some prompts of the test split at a time. One engine, however
many there are, is asked for one token and then for several: the first is the time until every prompt of the batch has
its first token, the difference is what the others took. Every answer has the same length, because a model that stops
early would seem fast.

Nothing is found again: prefixes are forgotten before each measurement, and where there are fewer prompts than a batch
holds, those that come again are turned round, so that no two begin alike.

Speed follows from shape, arithmetic, settings of the engine and machine, and not from weights. So it is measured once
for all models that share these, and kept for later experiments; `measured_on` says on what.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache import GenerateRequest
from cache.protocols import Failure
from configs import EngineError
from configs.architecture import read_architecture
from configs.models import Device
from configs.schema import EngineSettings
from evaluation.results import ModelResults, Serving, Speed, Spread
from orchestration.cluster.engine_pool import AnsweringPool
from orchestration.comparison.examination import Candidate
from orchestration.outputs.artifacts import digest_of, write_json
from orchestration.outputs.fields import from_fields, to_fields
from orchestration.outputs.kept import OutdatedError, read_sealed, sealed
from orchestration.plan.machine import engine_in_words

SERVING = "stillroom/serving/2"
"""The schema of what is kept, with its version."""

BATCHES = (1, 8, 32)
TOKENS = 8
"""Tokens of an answer: few, because a table of speeds should take seconds."""

RUNS = 3
PROMPT_TOKENS = 64
"""Prompts are cut to this length."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SpeedExamination:
    """Measures speeds on these prompts, and keeps them in `folder`.

    `settings` are those of an engine for a candidate, `joules` gives the energy that the run has taken so far.
    """

    prompts: tuple[tuple[int, ...], ...]
    folder: Path
    settings: Callable[[Candidate], EngineSettings]
    accelerator: Device
    joules: Callable[[], float]

    @property
    def title(self) -> str:
        """See `Examination`."""
        return "speed"

    def address(self, candidate: Candidate) -> str:
        """What speed follows from: models that agree in it share one measurement."""
        return digest_of(
            shape=read_architecture(candidate.directory).shape.model_dump(mode="json"),
            engine=engine_in_words(
                self.settings(candidate),
                accelerator=self.accelerator,
                dtype=candidate.identity.dtype,
                quantization=candidate.by_weights.quantization,
            ),
            prompts=[len(prompt[:PROMPT_TOKENS]) for prompt in self.prompts],
            measured=[*BATCHES, TOKENS, RUNS],
        )

    def due(self, candidate: Candidate) -> bool:
        """Whether no model that serves as fast was measured before."""
        return bool(self.prompts) and self.kept(candidate) is None

    def teacher_tokens(self) -> int:
        """Tokens of all measurements, warm-up included."""
        answers = len(BATCHES) + RUNS * sum(BATCHES) * 2
        return answers * (PROMPT_TOKENS + TOKENS)

    def run(self, candidate: Candidate, pool: AnsweringPool) -> None:
        """Measure the engine that `pool` has up.

        Raises:
            EngineError: it does not answer.
        """
        settings, vocab = self.settings(candidate), read_architecture(candidate.directory).shape.vocab
        batches = [batch for batch in BATCHES if batch <= settings.max_sequences] or [1]
        speeds, host, gpu = [], 0, 0
        energy = written = math.nan
        measured_on = _timed(self.asked(1, settings=settings, vocab=vocab), pool)[1]
        for batch in batches:
            before = self.joules()
            speeds.append(_speed(self.asked(batch, settings=settings, vocab=vocab), pool))
            # The largest batch comes last: what it takes is what serving at full load takes.
            energy, written = self.joules() - before, RUNS * batch * (1 + TOKENS)
            occupied = pool.occupancy()
            host, gpu = max(host, occupied.host_bytes), max(gpu, occupied.gpu_bytes)
        serving = Serving(measured_on, tuple(speeds), float(host), float(gpu), energy / written)
        digest = self.address(candidate)
        write_json(self._path(digest), sealed(SERVING, digest, to_fields(serving)))

    def add(self, row: ModelResults, candidate: Candidate) -> ModelResults:
        """The row with the speeds of models that serve as fast as this one."""
        return replace(row, serving=self.kept(candidate) if self.prompts else None)

    def kept(self, candidate: Candidate) -> Serving | None:
        """What was measured of such a model, by whatever experiment; what cannot be read is measured anew."""
        digest = self.address(candidate)
        try:
            fields = read_sealed(self._path(digest), schema=SERVING, digest=digest)
            return None if fields is None else from_fields(Serving, fields)
        except (OutdatedError, ValueError) as error:
            logger.warning("%s: speeds are measured anew", error)
            return None

    def asked(self, batch: int, *, settings: EngineSettings, vocab: int) -> list[GenerateRequest]:
        """Requests of one batch, none of which begins like another; a model of another vocabulary has every id."""
        longest = min(PROMPT_TOKENS, settings.max_model_len - TOKENS)
        found = []
        for number in range(batch):
            turns, at = divmod(number, len(self.prompts))
            prompt = tuple(token % vocab for token in self.prompts[at][:longest])
            turns %= len(prompt)
            found.append(
                GenerateRequest(prompt_ids=prompt[turns:] + prompt[:turns], stop_ids=(), max_new_tokens=TOKENS)
            )
        return found

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest[:16]}.json"


def _speed(requests: Sequence[GenerateRequest], pool: AnsweringPool) -> Speed:
    """One batch, several times."""
    only_first = [replace(request, max_new_tokens=1) for request in requests]
    firsts, rest, rates = [], [], []
    for _ in range(RUNS):
        first, whole = _timed(only_first, pool)[0], _timed(requests, pool)[0]
        firsts.append(first)
        rest.append(max(whole - first, 0.0) / (TOKENS - 1))
        rates.append(len(requests) * TOKENS / whole)
    return Speed(len(requests), _spread(firsts), _spread(rest), _spread(rates))


def _timed(requests: Sequence[GenerateRequest], pool: AnsweringPool) -> tuple[float, str]:
    """Seconds that one engine took for the whole batch, which it had never seen, and what it runs on."""
    pool.forget_prefixes()
    answers = pool.answer_alone(requests, k=0)
    failed = next((outcome.reason for outcome in answers.outcomes if isinstance(outcome, Failure)), None)
    if failed is not None:
        raise EngineError(f"no speed was measured: {failed}")
    return answers.seconds, answers.measured_on


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), len(values))
