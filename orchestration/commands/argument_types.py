"""Texts of the command line become values; what is not one is refused by argparse in its own line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from configs.places import parse_root

if TYPE_CHECKING:
    from orchestration.cache_tools.text_patterns import TextPattern

SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(text: str) -> int:
    """A size such as 500G or 1.5T, in bytes.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is not a size: write 500G, 1.5T or a number of bytes")
    return int(float(found[1]) * SIZES[found[2]])


def parse_count(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a count: name a whole number of at least 1")
    return int(text)


def parse_pattern(text: str) -> TextPattern:
    """A regular expression in RE2's syntax.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    from orchestration.cache_tools.text_patterns import TextPattern

    try:
        return TextPattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_cache_root(text: str) -> Path | str:
    """A directory or a URL.

    Raises:
        argparse.ArgumentTypeError: it is a URL of a kind that is not known.
    """
    try:
        return parse_root(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
