"""The same value has the same placeholder wherever it stands, another value another one."""

from __future__ import annotations

from orchestration.inputs.placeholders import Placeholders
from orchestration.inputs.private_spans import PrivateSpan


def put(placeholders: Placeholders, text: str, *values: tuple[str, str]) -> str:
    spans = [PrivateSpan(text.index(value), text.index(value) + len(value), kind) for kind, value in values]
    return placeholders.put(text, spans)


def test_values_keep_their_numbers_across_texts() -> None:
    held = Placeholders()
    assert put(held, "a@b.c and d@e.f", ("EMAIL", "a@b.c"), ("EMAIL", "d@e.f")) == "<EMAIL_1> and <EMAIL_2>"
    assert put(held, "again d@e.f, 555", ("EMAIL", "d@e.f"), ("PHONE", "555")) == "again <EMAIL_2>, <PHONE_1>"
    assert put(held, "A@B.C", ("EMAIL", "A@B.C")) == "<EMAIL_1>", "case makes no other person"
    assert put(held, "Zoë  Ray", ("PERSON", "Zoë  Ray")) == put(held, "Zoë Ray", ("PERSON", "Zoë Ray")) == "<PERSON_1>"
    assert put(held, "nothing") == "nothing"
    assert put(Placeholders(), "d@e.f", ("EMAIL", "d@e.f")) == "<EMAIL_1>"


def test_every_word_of_a_value_becomes_its_placeholder_and_stays_a_word() -> None:
    held = Placeholders()
    words = ["call", "(555)", "123", "or", "x@y"]
    text = " ".join(words)
    spans = [PrivateSpan(6, text.index(" or"), "PHONE"), PrivateSpan(text.index("x@y"), len(text), "EMAIL")]
    assert text[6:13] == "555) 12"
    assert held.put_in_words(words, spans) == ["call", "(<PHONE_1>", "<PHONE_1>", "or", "<EMAIL_1>"]
    assert put(held, "tel: 555) 123", ("PHONE", "555) 123")) == "tel: <PHONE_1>", "in a text it is the same value"
    assert held.put_in_words(["a12", "b"], [PrivateSpan(1, 2, "CARD")]) == ["a<CARD_1>2", "b"]
    assert held.put_in_words([], []) == []
