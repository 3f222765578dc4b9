"""Assertions of the conformance suite explain themselves like those of any test file."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("conformance")
