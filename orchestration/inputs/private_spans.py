"""Where a text holds personal data or a secret: by form (presidio-analyzer, detect-secrets), and names by a model.

Both libraries are an optional part, imported where they are needed. Presidio's recognisers are asked one by one,
without its engine, which would want a model of a language for everything. What an e-mail address is they look up in the
list of public suffixes that comes with tldextract, which would fetch a newer one at its first use and is told not to.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from configs import ConfigError
from configs.screening import PERSON, PrivacyConfig

NOT_INSTALLED = (
    'privacy needs recognisers that are not installed: install "stillroom[privacy]", or remove the block privacy'
)

RECOGNISERS = {
    "EMAIL": "EmailRecognizer",
    "PHONE": "PhoneRecognizer",
    "CARD": "CreditCardRecognizer",
    "IBAN": "IbanRecognizer",
    "IP": "IpRecognizer",
    "SSN": "UsSsnRecognizer",
    "CRYPTO": "CryptoRecognizer",
}
"""Of presidio, by what they find."""

UNSURE = frozenset(
    {"Base64 High Entropy String", "Hex High Entropy String", "Secret Keyword", "Private Key", "Public IP (ipv4)"}
)
"""Of detect-secrets, what only looks random: here the name beside it tells (`_NAMED_SECRET`)."""

MODEL_SCORE = 0.85
"""How sure a pipeline of spaCy is taken to be, which does not say: as presidio takes it."""

LARGEST_TEXT = 1_000_000
"""Characters of what is looked at in one go; a longer text is looked at in parts."""

OVERLAP = 1_000
"""Characters that two parts share, so that nothing is cut in two."""

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----.*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----|\Z)", re.S
)
_NAMED_SECRET = re.compile(
    r"""(?ix)\b[\w-]{0,40}(?:api[_-]?key|secret|token|passw(?:or)?d|passphrase|credential|access[_-]?key|auth)[\w-]{0,40}
    ["'`]?\s{0,3}(?:[:=]{1,2}|=>|\bis\b)\s{0,3}["'`]?(?P<value>[^\s"'`,;<>]{8,512})"""
)
_REST = re.compile(r"[\w+/=.-]*")
"""Of a token whose pattern is satisfied before its end."""

_BITS_A_CHARACTER = 3.0
"""Beside a name like a key's: English words have about 2 to 3 bits a character over their own letters, random ones
more."""


@dataclass(frozen=True, slots=True, order=True)
class PrivateSpan:
    """Characters `start` to `end` of a text, what they are, and how sure that is (0 to 1)."""

    start: int
    end: int
    kind: str
    score: float = field(default=1.0, compare=False)


FindSpans = Callable[[str], Iterable[PrivateSpan]]


class SpanFinder:
    """Finds what a block asks for; made once, used for many texts."""

    def __init__(self, config: PrivacyConfig) -> None:
        """Load the recognisers.

        Raises:
            ConfigError: a part, or the model of names, is not installed.
        """
        self._finders: list[FindSpans] = []
        kinds = [kind for kind in config.find if kind in RECOGNISERS]
        if kinds:
            self._finders.append(_by_presidio(kinds, threshold=config.threshold))
        if "SECRET" in config.find:
            self._finders.append(_by_secrets())
        if config.names is not None:
            self._finders.append(_by_model(config.names))

    def find(self, text: str) -> list[PrivateSpan]:
        """What is found, in order; where two overlap the surer one counts, and of equally sure ones the longer."""
        found: list[PrivateSpan] = []
        for at, part in _parts(text):
            for finder in self._finders:
                found += [PrivateSpan(at + each.start, at + each.end, each.kind, each.score) for each in finder(part)]
        return without_overlaps(found)


def without_overlaps(spans: Sequence[PrivateSpan]) -> list[PrivateSpan]:
    """The surest spans that do not touch each other, in order; the digits of most numbers are a phone's somewhere."""
    kept: list[PrivateSpan] = []
    for span in sorted(spans, key=lambda each: (-each.score, each.start - each.end)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return sorted(kept)


def _parts(text: str) -> Iterator[tuple[int, str]]:
    for at in range(0, max(len(text), 1), LARGEST_TEXT - OVERLAP):
        yield at, text[at : at + LARGEST_TEXT]
        if at + LARGEST_TEXT >= len(text):
            return


def _by_presidio(kinds: Sequence[str], *, threshold: float) -> FindSpans:
    try:
        import presidio_analyzer.predefined_recognizers as predefined
        from tldextract import TLDExtract, tldextract
    except ImportError:
        raise ConfigError(NOT_INSTALLED) from None
    tldextract.TLD_EXTRACTOR = TLDExtract(suffix_list_urls=(), cache_dir=None)
    recognisers = {kind: getattr(predefined, RECOGNISERS[kind])() for kind in kinds}

    def find(text: str) -> Iterator[PrivateSpan]:
        for kind, recogniser in recognisers.items():
            for each in recogniser.analyze(text, recogniser.supported_entities, None) or ():
                if each.score >= threshold:
                    yield PrivateSpan(each.start, each.end, kind, each.score)

    return find


def _by_secrets() -> FindSpans:
    try:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    except ImportError:
        raise ConfigError(NOT_INSTALLED) from None
    plugins = [made() for name, made in sorted(get_mapping_from_secret_type_to_class().items()) if name not in UNSURE]
    return partial(_secrets, patterns=[pattern for plugin in plugins for pattern in plugin.denylist])


def _secrets(text: str, *, patterns: Sequence[re.Pattern[str]]) -> Iterator[PrivateSpan]:
    for match in _PRIVATE_KEY.finditer(text):
        yield PrivateSpan(match.start(), match.end(), "SECRET")
    for match in _NAMED_SECRET.finditer(text):
        if _bits_a_character(match["value"]) >= _BITS_A_CHARACTER and not match["value"].isalpha():
            yield PrivateSpan(match.start("value"), match.end("value"), "SECRET")
    for pattern in patterns:
        for match in pattern.finditer(text):
            rest = _REST.match(text, match.end())
            yield PrivateSpan(match.start(), match.end() + len(rest[0].rstrip(".") if rest else ""), "SECRET")


def _bits_a_character(text: str) -> float:
    """Shannon's entropy of a text over its own characters."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)


def _by_model(name: str) -> FindSpans:
    try:
        import spacy
    except ImportError:
        raise ConfigError(NOT_INSTALLED) from None
    try:
        pipeline = spacy.load(name, exclude=["parser", "lemmatizer", "textcat"])
    except (OSError, ValueError, ImportError):
        raise ConfigError(
            f"privacy.names={name} is not an installed pipeline of spaCy: install the package of that name, or leave "
            "names out, which then are not looked for"
        ) from None
    if "ner" not in pipeline.pipe_names:
        raise ConfigError(f"privacy.names={name} finds no names, it has {', '.join(pipeline.pipe_names)}: name another")

    def find(text: str) -> Iterator[PrivateSpan]:
        for entity in pipeline(text).ents:
            if entity.label_ in ("PERSON", "PER"):
                yield PrivateSpan(entity.start_char, entity.end_char, PERSON, MODEL_SCORE)

    return find
