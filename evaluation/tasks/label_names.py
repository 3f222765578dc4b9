"""Labels as they are named in text.

A label is found by itself or by its verbaliser, as whole words, whatever the case and width of its letters (NFKC, case
folded); spaces, hyphens and underscores between its words are one. In scripts without spaces there are no whole words
to ask for. Where two names begin at one place the longer one is meant.

The first label that is named is the answer. Two things follow, and both are meant: "not billing" answers billing, and
so does "billing, though it could be a fault". One thing is excepted: where the labels that are named first are all of
them, each once, with nothing but punctuation, "or" and "and" between, the question is repeated. What is named after
that list is the answer; where nothing follows, there is none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from configs import ConfigError
from configs.task import TaskConfig
from evaluation.words import script_of

READ = 50_000
"""Characters of an answer in which a label is looked for."""

_BETWEEN = re.compile(r"[\s_\-]+")
_LIST_SEPARATOR = re.compile(r"(?:[\W_]|\b(?:or|and)\b)*")
_EDGE_BEFORE, _EDGE_AFTER = r"(?<![^\W_])", r"(?![^\W_])"


@dataclass(frozen=True, slots=True)
class LabelNames:
    """The names of a task's labels. `labels` maps a folded name to its label."""

    labels: Mapping[str, str]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, task: TaskConfig) -> LabelNames:
        """Those of a task.

        Raises:
            ConfigError: two labels have one name.
        """
        labels: dict[str, str] = {}
        for label, words in task.verbalisers.items():
            for name in (label, words):
                other = labels.setdefault(_folded(name), label)
                if other != label:
                    raise ConfigError(
                        f"task {task.name}: labels {other!r} and {label!r} are both read from {name!r}: "
                        "give each other words"
                    )
        return cls(labels, _one_of(sorted(labels, key=len, reverse=True)))

    def first_in(self, text: str) -> str | None:
        """The label that a text names first, behind a list of all labels; None where it names none."""
        folded = _nfkc(text[:READ])
        mentions = self._mentions(folded)
        first = next(mentions, None)
        if first is None:
            return None
        listed, end = {first[0]}, first[1].end()
        for label, match in mentions:
            if len(listed) == self._count:
                return label
            if label in listed or not _LIST_SEPARATOR.fullmatch(folded, end, match.start()):
                return first[0]
            listed.add(label)
            end = match.end()
        return None if len(listed) == self._count > 1 else first[0]

    def all_in(self, text: str) -> frozenset[str]:
        """The labels that a text names."""
        return frozenset(label for label, _ in self._mentions(_nfkc(text[:READ])))

    def named(self, text: str | None) -> str | None:
        """The label whose name a text is."""
        return None if text is None else self.labels.get(_folded(text))

    @property
    def _count(self) -> int:
        return len(set(self.labels.values()))

    def _mentions(self, folded: str) -> Iterator[tuple[str, re.Match[str]]]:
        return ((self.labels[_folded(match[0])], match) for match in self.pattern.finditer(folded))


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _folded(name: str) -> str:
    """A name with its words one space apart."""
    return _BETWEEN.sub(" ", _nfkc(name)).strip() or _nfkc(name).strip()


def _one_of(longest_first: Sequence[str]) -> re.Pattern[str]:
    """Any of the names. A whole word has edges, and whether there can be words its first and last character say."""
    as_word = [name for name in longest_first if _has_edge(name[0])]
    anywhere = [name for name in longest_first if not _has_edge(name[0])]
    kinds = [
        edge + "(?:" + "|".join(map(_as_pattern, names)) + ")"
        for edge, names in ((_EDGE_BEFORE, as_word), ("", anywhere))
        if names
    ]
    return re.compile("|".join(kinds))


def _as_pattern(name: str) -> str:
    words = r"[\s_\-]+".join(map(re.escape, name.split(" ")))
    return words + (_EDGE_AFTER if _has_edge(name[-1]) else "")


def _has_edge(character: str) -> bool:
    return character.isalnum() and script_of(character) != "unspaced"
