"""One rule reads the tags of every dialect, and agrees with nervaluate on the plain ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nervaluate.loaders import ListLoader

from evaluation.tasks.spans import Span, read_span, spans_of


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-PER I-PER O B-LOC", ["0 2 PER", "3 4 LOC"]),
        ("I-PER I-PER O I-LOC", ["0 2 PER", "3 4 LOC"]),  # IOB1
        ("I-PER B-PER I-LOC", ["0 1 PER", "1 2 PER", "2 3 LOC"]),  # IOB1: B between neighbours of one type
        ("B-PER B-PER", ["0 1 PER", "1 2 PER"]),
        ("B-PER I-PER E-PER S-LOC O", ["0 3 PER", "3 4 LOC"]),  # BIOES
        ("B-PER L-PER U-LOC U-LOC", ["0 2 PER", "2 3 LOC", "3 4 LOC"]),  # BILOU
        ("E-PER I-PER", ["0 1 PER", "1 2 PER"]),  # an end without a beginning
        ("B-corporate-name I-corporate-name", ["0 2 corporate-name"]),
    ],
)
def test_dialects(tags: str, expected: list[str]) -> None:
    assert [str(span) for span in spans_of(tags.split())] == expected


@pytest.mark.parametrize("tag", ["PER", "X-PER", "B-", "-PER", "", "b-PER"])
def test_a_malformed_tag_is_named(tag: str) -> None:
    with pytest.raises(ValueError, match=rf"tag 1 is '{tag}': write O, or one of"):
        spans_of(["O", tag])


@given(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), min_size=1))
def test_iob_is_read_as_nervaluate_reads_it(tags: list[str]) -> None:
    theirs = [(entity.start, entity.end + 1, entity.label) for entity in ListLoader().load([tags])[0]]
    assert [(span.start, span.end, span.type) for span in spans_of(tags)] == theirs


def test_a_span_is_read_as_it_was_written() -> None:
    span = Span(3, 5, "two words")
    assert read_span(str(span)) == span
    assert not read_span("-1 -1 PER").placed
