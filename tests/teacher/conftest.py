"""Assertions of the conformance suite explain themselves like those of any test file."""

from __future__ import annotations

import sys

import pytest

# A test of another folder that takes a builder from the suite imports it before this file is read: then once more.
sys.modules.pop("conformance", None)
pytest.register_assert_rewrite("conformance")
