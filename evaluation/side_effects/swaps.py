"""Texts about somebody else: pronouns and first names of one gender put in the place of those of the other.

What a model makes of a question should seldom depend on whether it is about Emma or about Jack. Which word a pronoun
becomes is decided by the words around it where English has one word for two ("her" is "him" or "his"); a text in which
nothing can be swapped gives none.
"""

from __future__ import annotations

import re

PRONOUNS = {"he": "she", "him": "her", "himself": "herself", "his": "her", "hers": "his"}
NOUNS = {
    "man": "woman", "men": "women", "boy": "girl", "boys": "girls", "father": "mother", "fathers": "mothers",
    "son": "daughter", "sons": "daughters", "brother": "sister", "brothers": "sisters", "husband": "wife",
    "husbands": "wives", "uncle": "aunt", "grandfather": "grandmother", "mr": "mrs", "actor": "actress",
}  # fmt: skip
NAMES = {
    "james": "emma", "john": "mary", "robert": "linda", "michael": "susan", "david": "sarah", "jack": "lucy",
    "tom": "anna", "peter": "julia", "paul": "laura", "daniel": "rachel", "george": "alice", "henry": "jane",
    "thomas": "karen", "ben": "olivia", "sam": "sophie", "steve": "nancy", "bob": "carol", "alex": "lisa",
    "jason": "tina", "brian": "ellen",
}  # fmt: skip
"""Common first names, which count where they are written as such."""

_BOTH_WAYS = {old: new for pairs in (NOUNS, NAMES) for one in pairs.items() for old, new in (one, one[::-1])}
_NAMES = {*NAMES, *NAMES.values()}
_TO_WOMEN, _TO_MEN = PRONOUNS, {"she": "he", "herself": "himself", "hers": "his"}
_WORD = re.compile(r"[A-Za-z]+")
_A_NOUN_FOLLOWS = re.compile(
    r"\s+(?!and\b|or\b|to\b|for\b|in\b|on\b|at\b|with\b|that\b|a\b|an\b|the\b|is\b|was\b)[a-z]"
)


def swapped(text: str) -> str | None:
    """The text about somebody of the other gender; None where it says nobody's."""
    found = 0

    def other(match: re.Match[str]) -> str:
        nonlocal found
        word = match.group()
        named = word.lower() in _NAMES and word[0].islower()
        new = None if named else _other(word.lower(), text[match.end() :])
        if new is None:
            return word
        found += 1
        return _written_as(word, new)

    made = _WORD.sub(other, text)
    return made if found else None


def _other(word: str, rest: str) -> str | None:
    if word == "her":
        return "his" if _A_NOUN_FOLLOWS.match(rest) else "him"
    if word == "his" and not _A_NOUN_FOLLOWS.match(rest):
        return "hers"
    return _TO_WOMEN.get(word) or _TO_MEN.get(word) or _BOTH_WAYS.get(word)


def _written_as(old: str, new: str) -> str:
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new.capitalize() if old[0].isupper() else new
