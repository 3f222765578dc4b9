"""Checks on the shipped prompt dataset in ``configs/prompts``.

The splits must be well formed, cover every task, stay short enough for a small
model, and share no near-duplicate prompts, so that a score on ``dev`` or
``test`` is a score on prompts which training has not seen.
"""

import difflib
import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PROMPTS_DIR = Path(__file__).resolve().parents[3] / "configs" / "prompts"
SPLIT_SIZES = {"train": 544, "dev": 48, "test": 64}
TASKS = frozenset(
    {
        "advice",
        "arithmetic",
        "classify",
        "compare",
        "complete",
        "define",
        "explain",
        "extract",
        "list",
        "question",
        "rewrite",
        "summarize",
        "translate",
        "write",
    }
)
ROW_KEYS = {"id", "task", "prompt"}
MIN_ROWS = 600
MAX_WORDS = 60
GRAM_SIZE = 3
MAX_GRAM_JACCARD = 0.5
MAX_SEQUENCE_RATIO = 0.85
MIN_SHARED_WORDS = 0.5

Row = dict[str, str]


@functools.cache
def load_split(split: str) -> tuple[Row, ...]:
    """Return the rows of one split, in file order."""
    text = (PROMPTS_DIR / f"{split}.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.split("\n") if line)


def all_rows() -> list[Row]:
    """Return the rows of every split."""
    return [row for split in SPLIT_SIZES for row in load_split(split)]


@functools.cache
def normalized_words(prompt: str) -> tuple[str, ...]:
    """Return the lower-cased words of a prompt, without punctuation."""
    without_apostrophes = re.sub(r"['\u2019]", "", prompt.lower())
    return tuple(re.sub(r"[\W_]+", " ", without_apostrophes).split())


@functools.cache
def word_grams(prompt: str) -> frozenset[tuple[str, ...]]:
    """Return the word n-grams of a prompt; a shorter prompt is one gram."""
    words = normalized_words(prompt)
    size = min(GRAM_SIZE, len(words))
    return frozenset(words[i : i + size] for i in range(len(words) - size + 1))


def gram_jaccard(first: str, second: str) -> float:
    """Return the Jaccard similarity of two prompts' word n-grams."""
    a, b = word_grams(first), word_grams(second)
    return len(a & b) / len(a | b)


def shares_enough_words(first: str, second: str) -> bool:
    """Say whether two prompts share half the words of the shorter one."""
    a, b = set(normalized_words(first)), set(normalized_words(second))
    return len(a & b) >= MIN_SHARED_WORDS * min(len(a), len(b))


def sequence_ratio(first: str, second: str) -> float:
    """Return difflib's similarity of two prompts after normalization."""
    a, b = " ".join(normalized_words(first)), " ".join(normalized_words(second))
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def cross_split_pairs() -> Iterator[tuple[str, str]]:
    """Yield every pair of prompts which lie in two different splits."""
    for left, right in itertools.combinations(SPLIT_SIZES, 2):
        for a, b in itertools.product(load_split(left), load_split(right)):
            yield a["prompt"], b["prompt"]


def test_rows_are_well_formed() -> None:
    """Every row has exactly the expected keys, all of them non-empty text."""
    for row in all_rows():
        assert set(row) == ROW_KEYS, row
        assert all(isinstance(value, str) for value in row.values()), row
        assert row["prompt"] and row["prompt"] == row["prompt"].strip(), row
        assert row["task"] in TASKS, row
        assert re.fullmatch(rf"{row['task']}-\d{{3,}}", row["id"]), row


def test_ids_are_unique() -> None:
    """No id, and no number within an id, occurs twice in all the splits."""
    ids = [row["id"] for row in all_rows()]
    numbers = [row_id.rpartition("-")[2] for row_id in ids]
    assert [key for key, count in Counter(ids).items() if count > 1] == []
    assert [key for key, count in Counter(numbers).items() if count > 1] == []


def test_split_sizes() -> None:
    """Each split has its documented size, and the total is large enough."""
    sizes = {split: len(load_split(split)) for split in SPLIT_SIZES}
    assert sizes == SPLIT_SIZES
    assert sum(sizes.values()) >= MIN_ROWS


def test_every_split_has_every_task() -> None:
    """Each task occurs in each of the splits."""
    for split in SPLIT_SIZES:
        assert {row["task"] for row in load_split(split)} == TASKS, split


def test_prompts_are_short() -> None:
    """No prompt is longer than the word limit."""
    for row in all_rows():
        assert len(row["prompt"].split()) <= MAX_WORDS, row["id"]


def test_no_identical_prompts_within_a_split() -> None:
    """Within a split, no two prompts are the same after normalization."""
    for split in SPLIT_SIZES:
        counts = Counter(normalized_words(row["prompt"]) for row in load_split(split))
        repeated = [words for words, count in counts.items() if count > 1]
        assert repeated == [], split


def test_no_shared_grams_between_splits() -> None:
    """Across splits, no two prompts have mostly the same word n-grams."""
    close = [pair for pair in cross_split_pairs() if gram_jaccard(*pair) >= MAX_GRAM_JACCARD]
    assert close == []


def test_no_similar_sequences_between_splits() -> None:
    """Across splits, no two prompts are nearly the same text."""
    close = [
        pair
        for pair in cross_split_pairs()
        if shares_enough_words(*pair) and sequence_ratio(*pair) >= MAX_SEQUENCE_RATIO
    ]
    assert close == []


def test_similarity_measures_catch_near_duplicates() -> None:
    """The measures themselves flag a copy and an edited copy of a prompt."""
    prompt = "What do bees collect from flowers to make honey?"
    copy = "what do bees collect, from flowers, to make HONEY"
    edited = "What do bees collect from plants to make honey?"
    assert gram_jaccard(prompt, copy) == 1.0
    assert shares_enough_words(prompt, edited)
    assert sequence_ratio(prompt, edited) >= MAX_SEQUENCE_RATIO
    assert gram_jaccard(prompt, "Name five parts of a bicycle.") == 0.0
