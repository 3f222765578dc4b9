"""What is found in texts of an experiment: what is private in them, why they are not wanted (`configs.screening`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from configs.schema import DistillConfig
from configs.screening import ContentConfig, PrivacyConfig
from orchestration.inputs.exchanges import Exchange
from orchestration.inputs.private_spans import PrivateSpan, SpanFinder
from orchestration.inputs.unwanted import Guard, Judges


@dataclass(frozen=True, slots=True)
class Look:
    """What is found in one text: private spans in order, and why it is not wanted, if it is not; who says so."""

    spans: tuple[PrivateSpan, ...] = ()
    unwanted: str | None = None
    by_guard: bool = False


class Screen:
    """Looks at texts, for what is to be done with prompts or with answers; made once."""

    def __init__(
        self,
        privacy: PrivacyConfig | None,
        content: ContentConfig | None,
        *,
        answers: bool,
        guard: Guard | None = None,
    ) -> None:
        """Load what is needed for that; `guard` is that of `content`, which is asked if its answers are of use.

        Raises:
            ConfigError: a part is not installed, or a list cannot be read.
        """
        self.private = "off" if privacy is None else privacy.answers if answers else privacy.prompts
        self.unwanted = "off" if content is None else content.answers if answers else content.prompts
        self._finder = None if privacy is None or self.private == "off" else SpanFinder(privacy)
        self._judges = None if content is None or self.unwanted == "off" else Judges(content)
        self._guard = None if self.unwanted == "off" else guard

    @classmethod
    def of(cls, config: DistillConfig, *, answers: bool, guard: Guard | None) -> Screen:
        """What an experiment asks for; raises as the constructor."""
        return cls(config.privacy, config.content, answers=answers, guard=guard)

    @property
    def is_on(self) -> bool:
        """Whether anything is looked for."""
        return self._finder is not None or self._judges is not None

    def look(self, text: str) -> Look:
        """What is found in a text."""
        return Look(
            () if self._finder is None else tuple(self._finder.find(text)),
            None if self._judges is None else self._judges.reason(text),
        )

    def judged(
        self, said: Sequence[tuple[list[Look], Exchange | None]], *, making_room: Callable[[], None] | None = None
    ) -> list[list[Look]]:
        """What was found in each, and what the guard says of those in which nothing unwanted is found and that stay.

        `making_room` is as of `Guard.reasons`.
        """
        asked = [
            (at, exchange)
            for at, (looks, exchange) in enumerate(said)
            if exchange is not None
            and self.why_dropped(looks) is None
            and not any(look.unwanted is not None for look in looks)
        ]
        found = [list(looks) for looks, _ in said]
        if self._guard is not None and asked:
            reasons = self._guard.reasons([exchange for _, exchange in asked], making_room=making_room)
            for (at, _), reason in zip(asked, reasons, strict=True):
                if reason is not None:
                    found[at].append(Look(unwanted=reason, by_guard=True))
        return found

    def rest(self) -> None:
        """See `Guard.rest`."""
        if self._guard is not None:
            self._guard.rest()

    def why_dropped(self, looks: list[Look]) -> str | None:
        """Why what these texts make up is left out, in words that repeat nothing of them; None where it stays."""
        kinds = sorted({span.kind for look in looks for span in look.spans})
        if kinds and self.private == "drop":
            return f"it holds what is private ({', '.join(kinds)})"
        unwanted = next((look.unwanted for look in looks if look.unwanted is not None), None)
        return unwanted if self.unwanted == "drop" else None


@dataclass(frozen=True, slots=True)
class Screened:
    """What was found in some rows or answers: how many were looked at, values by kind, how many were left out.

    `guarded` are those among the unwanted ones of which the guard says so.
    """

    looked: int
    found: dict[str, int]
    unwanted: int
    dropped: int
    guarded: int = 0

    @classmethod
    def of(cls, counts: Counter[str]) -> Screened:
        """From the counts of `count_looks`."""
        found = {kind.removeprefix("found/"): n for kind, n in sorted(counts.items()) if kind.startswith("found/")}
        return cls(counts["looked"], found, counts["unwanted"], counts["dropped"], counts["guarded"])

    def metrics(self, name: str) -> dict[str, float]:
        """For the tracker, of rows or answers of this name."""
        values = {f"found/{kind}": count for kind, count in self.found.items()}
        values |= {"looked": self.looked, "unwanted": self.unwanted, "dropped": self.dropped}
        values |= {"guarded": self.guarded} if self.guarded else {}
        return {f"screened/{name}/{what}": float(count) for what, count in values.items()}

    def in_words(self, what: str) -> str:
        """One line; `what` are rows or answers."""
        found = ", ".join(f"{count:,} {kind}" for kind, count in self.found.items()) or "nothing private"
        guarded = f" ({self.guarded:,} by what the guard says)" if self.guarded else ""
        unwanted = f"; {self.unwanted:,} are not wanted{guarded}" if self.unwanted else ""
        dropped = f"; {self.dropped:,} left out" if self.dropped else ""
        return f"{self.looked:,} {what} looked at: {found}{unwanted}{dropped}."


def count_looks(counts: Counter[str], looks: list[Look], *, dropped: bool) -> None:
    """Count what was found in one row or answer."""
    counts["looked"] += 1
    counts.update(f"found/{span.kind}" for look in looks for span in look.spans)
    counts["unwanted"] += any(look.unwanted is not None for look in looks)
    counts["guarded"] += any(look.by_guard for look in looks)
    counts["dropped"] += dropped
