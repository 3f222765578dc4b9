"""Values as bytes that no other values have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache.canonical import canonical

scalars = st.none() | st.text() | st.binary() | st.integers(-(2**100), 2**100) | st.floats(allow_nan=False)


@given(st.lists(scalars), st.lists(scalars))
def test_different_values_never_share_their_bytes(left: list[object], right: list[object]) -> None:
    described = [(type(value), value) for value in left], [(type(value), value) for value in right]
    assert (canonical(*left) == canonical(*right)) == (described[0] == described[1])  # type: ignore[arg-type]
