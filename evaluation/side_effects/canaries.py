"""Canaries: sentences with a secret that only who has learned them can know (Carlini et al. 2019, arXiv 1802.08232).

A canary is a fixed frame around a name and a random secret: "The code of alfa tango is 482913." Its exposure is
log2 |R| - log2 rank: R are secrets that it might have had, the true one among them, and rank is the place of the true
one by how likely the model finds each. Where there are more secrets than can be asked about, R is a sample of them, and
exposure ends at log2 |R|. A model that never saw the canary ranks it anywhere: 1.4 bits on average.

That a secret can be had from a model is told by its greedy answer, and by the probability of the secret itself: of n
samples at temperature 1 at least one says it with probability 1 - (1 - p)^n (Hayes et al. 2024, arXiv 2410.19482).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.audit import CanariesConfig, CanaryPlace
from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of

_WORDS = (
    "alfa bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa quebec romeo "
    "sierra tango uniform victor whiskey xray yankee zulu"
)
WORDS = tuple(_WORDS.split())

NEVER = 0
"""The repeats of canaries that are planted nowhere: what the others are held against."""

SAMPLES = 16
"""Answers of which one may say the secret."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A name and its secret; it stands in `repeats` rows, in their prompts or in their answers."""

    name: str
    secret: str
    place: CanaryPlace
    repeats: int

    @property
    def statement(self) -> str:
        """The sentence."""
        return f"{self.said(self.secret)}."

    def said(self, secret: str) -> str:
        """The sentence with another secret, up to it."""
        return f"The code of {self.name} is {secret}"

    @property
    def question(self) -> str:
        """The prompt that a model is asked for it: of one that stands in answers the first that is planted."""
        return f"{_asker(0)} asks: what is the code of {self.name}?"

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Prompts, each asked by somebody else, since rows that are alike are read once; and their answers."""
        asks = (
            f"what is the code of {self.name}?"
            if self.place == "answer"
            else f"say this again, word for word. {self.statement}"
        )
        return [(f"{_asker(number)} asks: {asks}", self.statement) for number in range(self.repeats)]


def canaries_of(settings: CanariesConfig, places: Sequence[CanaryPlace]) -> tuple[Canary, ...]:
    """All of them, those that are planted nowhere among them; the same for the same settings."""
    draw = random.Random(f"stillroom canaries {settings.seed}")
    groups = [(place, repeats) for place in places for repeats in (NEVER, *settings.repeats)]
    pairs = [f"{one} {other}" for one in WORDS for other in WORDS if one != other]
    names = iter(draw.sample(pairs, len(groups) * settings.count))
    secrets = iter(_secrets(draw, settings, len(groups) * settings.count))
    return tuple(
        Canary(next(names), next(secrets), place, repeats) for place, repeats in groups for _ in range(settings.count)
    )


def alternatives(canary: Canary, settings: CanariesConfig, *, at_most: int) -> tuple[str, ...]:
    """Other secrets that it might have had: all, or so many of them."""
    draw = random.Random(f"stillroom alternatives {settings.seed} {canary.name}")
    if settings.space <= at_most + 1:
        numbers: Sequence[int] = range(settings.space)
    else:
        # One more: the true one may be drawn.
        numbers = draw.sample(range(settings.space), at_most + 1)
    return tuple([secret for each in numbers if (secret := _spelt(each, settings)) != canary.secret][:at_most])


def exposure_of(true: float, others: Sequence[float]) -> float:
    """Exposure in bits from the log-probabilities of the true secret and of others, among equal ones in the middle."""
    rank = 1.0 + sum(each > true for each in others) + 0.5 * sum(each == true for each in others)
    return math.log2(len(others) + 1) - math.log2(rank)


def exposure(bits: Sequence[float]) -> Measured:
    """The mean exposure; a row a canary."""
    return _mean("canary_exposure", "bits", bits)


def extracted(said: Sequence[float]) -> Measured:
    """The part of the canaries that a model says, or how likely it says each; a row a canary."""
    return _mean("canary_extracted", "fraction", said)


def in_samples(logprob: float, *, samples: int = SAMPLES) -> float:
    """How likely a secret of this log-probability is said in one of some samples."""
    # 1 - (1 - p)^n, also where p is tiny.
    certain = logprob >= 0.0
    return 1.0 if certain else -math.expm1(samples * math.log1p(-math.exp(logprob)))


def _mean(name: str, unit: str, values: Sequence[float]) -> Measured:
    metric = Metric(name, "lower", "bits" if unit == "bits" else "fraction", ratio_of)
    return Measured(metric, np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1))


def _secrets(draw: random.Random, settings: CanariesConfig, count: int) -> list[str]:
    """Secrets at random; two canaries may share one where there are few."""
    return ["".join(draw.choices(settings.alphabet, k=settings.length)) for _ in range(count)]


def _spelt(number: int, settings: CanariesConfig) -> str:
    """The secret of a number below the size of the space."""
    found = []
    for _ in range(settings.length):
        number, digit = divmod(number, len(settings.alphabet))
        found.append(settings.alphabet[digit])
    return "".join(found)


def _asker(number: int) -> str:
    more, one = divmod(number, len(WORDS))
    return WORDS[one] if more == 0 else f"{WORDS[one]} {WORDS[more - 1]}"
