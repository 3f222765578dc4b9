from __future__ import annotations

import pytest

from evaluation.tasks.row_fields import row_field
from evaluation.tasks.templates import UnfitRowError


def test_a_field_is_a_name_or_a_path_and_a_name_with_dots_comes_first() -> None:
    row = {"a": {"b": [{"c": 1}]}, "a.b": 2}
    assert row_field(row, "a.b") == 2 and row_field(row, "a.b.0.c") == 1
    for lost in ("b", "a.b.1.c", "a.b.x", "a.b.0.c.d"):
        with pytest.raises(UnfitRowError, match=f"field {lost} is missing"):
            row_field(row, lost)
