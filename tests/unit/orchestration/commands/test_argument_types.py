"""Texts of the command line become values or are refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration.commands.argument_types import parse_bytes, parse_cache_root, parse_count, parse_pattern


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("512", 512),
        ("1K", 1024),
        ("1.5M", 3 * 2**19),
        ("500G", 500 * 2**30),
        ("2TiB", 2**41),
        (" 3GB ", 3 * 2**30),
    ],
)
def test_sizes_are_powers_of_1024(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("parse", "text", "reason"),
    [
        (parse_bytes, "much", "much is not a size: write 500G, 1.5T or a number of bytes"),
        (parse_bytes, "-1", "-1 is not a size: write 500G, 1.5T or a number of bytes"),
        (parse_bytes, "1E", "1E is not a size: write 500G, 1.5T or a number of bytes"),
        (parse_count, "0", "0 is not a count: name a whole number of at least 1"),
        (parse_count, "-3", "-3 is not a count: name a whole number of at least 1"),
        (parse_count, "1.5", "1.5 is not a count: name a whole number of at least 1"),
        (parse_pattern, ".*", ".* matches every text: name what is to go"),
    ],
)
def test_what_is_not_one_is_refused_with_the_cure(parse: Callable[[str], Any], text: str, reason: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        parse(text)
    assert str(refused.value) == reason


def test_the_others() -> None:
    assert parse_count("12") == 12
    assert parse_pattern("a+").found_in("baa")
    assert parse_cache_root("data/cache") == Path("data/cache")
    assert parse_cache_root("s3://bucket/cache") == "s3://bucket/cache"
    with pytest.raises(argparse.ArgumentTypeError, match="ftp"):
        parse_cache_root("ftp://somewhere/x")
