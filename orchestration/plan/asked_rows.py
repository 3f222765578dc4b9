"""The requests of a split, made of its prompts when they are looked at, so that ten million take no memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cache.answers import Request
from cache.rows import MadeRows
from orchestration.inputs.prompts import Prompt

Asking = Callable[[Prompt, int], Request]
"""What is asked about a prompt, given the number of the sample."""


class AskedRows(MadeRows[Request]):
    """`samples` requests of each prompt, side by side."""

    __slots__ = ("_asking", "_prompts", "_samples")

    def __init__(self, prompts: Sequence[Prompt], asking: Asking, *, samples: int = 1) -> None:
        self._prompts, self._asking, self._samples = prompts, asking, samples

    def __len__(self) -> int:
        return len(self._prompts) * self._samples

    def made(self, start: int, stop: int) -> list[Request]:
        """See `MadeRows`."""
        samples = self._samples
        first, last = start // samples, -(-stop // samples)
        made = [self._asking(prompt, n) for prompt in self._prompts[first:last] for n in range(samples)]
        return made[start - first * samples : stop - first * samples]
