"""Values as bytes that no other values have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache.canonical import canonical, shared, token_bytes, token_ids_of

scalars = st.none() | st.text() | st.binary() | st.integers(-(2**100), 2**100) | st.floats(allow_nan=False)


@given(st.lists(scalars), st.lists(scalars))
def test_different_values_never_share_their_bytes(left: list[object], right: list[object]) -> None:
    described = [(type(value), value) for value in left], [(type(value), value) for value in right]
    assert (canonical(*left) == canonical(*right)) == (described[0] == described[1])  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 2**31 - 1)))
def test_token_ids_come_back_from_their_bytes(ids: list[int]) -> None:
    assert token_ids_of(token_bytes(tuple(ids))) == tuple(ids)


@given(st.lists(st.integers(0, 300_000)))
def test_the_same_token_is_the_same_object(ids: list[int]) -> None:
    # Python itself has small integers once, and makes others anew.
    one, other = shared(ids), shared([int(str(each)) for each in ids])
    assert one == other == tuple(ids)
    assert all(here is there for here, there in zip(one, other, strict=True))
