"""What is private is found where it stands, without the network; how much of it, and how often wrongly, is measured."""

from __future__ import annotations

import importlib.util
import socket
import sys
from typing import Any

import pytest

from configs import ConfigError
from configs.screening import PrivacyConfig
from orchestration.inputs import private_spans
from orchestration.inputs.private_spans import PrivateSpan, SpanFinder, without_overlaps

needs_recognisers = pytest.mark.skipif(
    importlib.util.find_spec("presidio_analyzer") is None or importlib.util.find_spec("detect_secrets") is None,
    reason="stillroom[privacy] is not installed",
)
PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----"
FLOORS = {
    "CARD": (0.98, 0.98),
    "EMAIL": (0.98, 0.98),
    "IBAN": (0.98, 0.98),
    "IP": (0.98, 0.6),
    "PHONE": (0.8, 0.9),
    "SECRET": (0.95, 0.98),
    "SSN": (0.95, 0.95),
}
"""Recall and precision at least, a little below what was measured (docs/log.md)."""


def found(text: str, **values: Any) -> list[tuple[str, str]]:
    spans = SpanFinder(PrivacyConfig.model_validate(values)).find(text)
    return [(span.kind, text[span.start : span.end]) for span in spans]


@needs_recognisers
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to zoe@example.com.", [("EMAIL", "zoe@example.com")]),
        ("to DE89 3704 0044 0532 0130 00, please", [("IBAN", "DE89 3704 0044 0532 0130 00")]),
        ("4111 1111 1111 1111 but not 4111 1111 1111 1112", [("CARD", "4111 1111 1111 1111")]),
        ("from 192.168.0.1", [("IP", "192.168.0.1")]),
        (f"key:\n{PRIVATE_KEY}\nend", [("SECRET", PRIVATE_KEY)]),
        ("AKIAIOSFODNN7EXAMPLE", [("SECRET", "AKIAIOSFODNN7EXAMPLE")]),
        ('api_key = "q8Zp3vTt0xLk"', [("SECRET", "q8Zp3vTt0xLk")]),
        ("the password is necessary here", []),
        ("Chapter 12 of 2024-05-12 costs 5,231.20", []),
        ("", []),
    ],
)
def test_values_are_found_by_their_form(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


@needs_recognisers
def test_only_the_kinds_that_are_chosen_are_looked_for() -> None:
    text = "zoe@example.com, AKIAIOSFODNN7EXAMPLE, 212-555-0187"
    assert found(text, find=["SECRET"]) == [("SECRET", "AKIAIOSFODNN7EXAMPLE")]
    # A phone's digits prove little.
    assert [kind for kind, _ in found(text, threshold=0.5)] == ["EMAIL", "SECRET"]


@needs_recognisers
def test_a_value_across_two_parts_of_a_long_text_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_spans, "LARGEST_TEXT", 60)
    monkeypatch.setattr(private_spans, "OVERLAP", 30)
    text = "word " * 9 + "zoe@example.com" + " word" * 20
    assert found(text, find=["EMAIL"]) == [("EMAIL", "zoe@example.com")]


@needs_recognisers
def test_nothing_is_asked_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **named: object) -> None:
        raise AssertionError("somebody opens a connection")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    assert found("zoe@example.co.uk") == [("EMAIL", "zoe@example.co.uk")]


def test_of_two_that_overlap_the_surer_one_counts_then_the_longer() -> None:
    phone, address = PrivateSpan(0, 12, "PHONE", 0.4), PrivateSpan(2, 10, "IP", 0.6)
    key, part = PrivateSpan(20, 40, "SECRET"), PrivateSpan(25, 30, "EMAIL")
    assert without_overlaps([phone, part, key, address]) == [address, key]


@pytest.mark.parametrize("module", ["presidio_analyzer.predefined_recognizers", "detect_secrets.core.plugins.util"])
def test_a_part_that_is_missing_is_one_line_with_the_cure(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"install \"stillroom\[privacy\]\", or remove the block privacy"):
        SpanFinder(PrivacyConfig(find=("EMAIL",) if "presidio" in module else ("SECRET",)))


@needs_recognisers
def test_a_model_of_names_that_is_missing_or_has_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.names=no_such_pipeline is not an installed pipeline of spaCy"):
        SpanFinder(PrivacyConfig(names="no_such_pipeline"))


@needs_recognisers
def test_recognisers_find_what_was_planted_and_little_else() -> None:
    pytest.importorskip("faker")
    from made_people import clean_records, made_records, measure

    records = [*made_records(1000, seed=0), *clean_records(500, seed=1)]
    measured = measure(SpanFinder(PrivacyConfig(find=tuple(FLOORS))), records)
    assert set(measured) == set(FLOORS)
    for kind, (recall, precision) in FLOORS.items():
        assert measured[kind].planted >= 150
        assert measured[kind].recall >= recall, (kind, measured[kind])
        assert measured[kind].precision >= precision, (kind, measured[kind])
    blind = measure(SpanFinder(PrivacyConfig(find=("SSN",))), records)
    assert blind["EMAIL"].recall == 0.0, "what is not looked for is not found: the measure can fail"
