"""Directories and URLs are told apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configs.places import absolute_root, is_url, parse_root


@pytest.mark.parametrize("text", ["s3:/bucket/x", "s3://", "ftp://host/x", "http://host/x", "S3://b/x"])
def test_a_url_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a place for a cache"):
        parse_root(text)


def test_roots_are_told_apart(tmp_path: Path) -> None:
    assert parse_root("s3://bucket/prefix/") == "s3://bucket/prefix"
    assert parse_root("data/cache") == Path("data/cache")
    assert is_url("gs://bucket/x")
    assert not is_url(tmp_path)
    assert absolute_root("s3://bucket/x") == "s3://bucket/x"
    assert absolute_root(Path("x")) == Path(os.getcwd()) / "x"
