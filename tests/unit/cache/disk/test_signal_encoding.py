from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from signal_builders import ENCODINGS

from cache.disk.signal_encoding import (
    HELD,
    LARGEST_STEP,
    MeasuredError,
    SignalEncoding,
    check_encodable,
    check_signal_encoding,
    decode_values,
    encode_values,
    errors_together,
    measure_error,
    scale_of,
)
from configs.errors import RecordError

FLOATS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 9)),
    elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
)


def back(values: np.ndarray, encoding: SignalEncoding) -> np.ndarray:
    columns = encode_values(values, encoding=encoding)
    return decode_values(columns[HELD[encoding][0]], scale_of(columns, rows=len(values)), encoding=encoding)


@given(FLOATS)
def test_float32_comes_back_bit_for_bit(values: np.ndarray) -> None:
    assert back(values, "signal-f32").tobytes() == values.tobytes()
    assert math.isnan(measure_error(values, encode_values(values, encoding="signal-f32"), encoding="signal-f32").rms)


@given(FLOATS, st.sampled_from(["signal-f16", "signal-u8"]))
def test_whatever_is_taken_comes_back_near_and_finite(values: np.ndarray, encoding: SignalEncoding) -> None:
    try:
        check_encodable(values, encoding=encoding)
    except RecordError as error:
        assert "use signal-f32" in str(error)
        assert np.abs(values).max() > (65_504 if encoding == "signal-f16" else 1e38)
        return
    found, exact = back(values, encoding).astype(np.float64), values.astype(np.float64)
    if encoding == "signal-f16":
        allowed = np.maximum(np.abs(exact) * 2**-11, 2.0**-25)
    else:
        # Half a step, and what float32 rounds: the step itself, the product and the sum.
        spread = exact.max(axis=1, keepdims=True) - exact.min(axis=1, keepdims=True)
        rounding = np.abs(exact).max(axis=1, keepdims=True) * 2.0**-22 + LARGEST_STEP * 2.0**-149
        allowed = spread / LARGEST_STEP / 2 * (1 + 1e-6) + rounding
    assert (np.abs(found - exact) <= allowed).all()
    error = measure_error(values, encode_values(values, encoding=encoding), encoding=encoding)
    assert error.largest == np.abs(found - exact).max()
    assert error.rms == pytest.approx(float(np.sqrt(np.square(found - exact).mean())), rel=1e-9)


def test_a_row_decodes_to_the_same_bits_whatever_stands_beside_it() -> None:
    values = np.random.default_rng(0).normal(size=(5000, 7)).astype(np.float32)
    for encoding in ("signal-f16", "signal-u8"):
        whole = back(values, encoding)
        assert whole[4321:4325].tobytes() == back(values[4321:4325], encoding).tobytes()


def test_the_ends_of_a_row_and_a_row_of_one_value_are_kept() -> None:
    values = np.array([[-2.0, 0.5, 3.08], [7.0, 7.0, 7.0]], dtype=np.float32)
    found = back(values, "signal-u8")
    assert found[0, 0] == -2.0 and found[1].tolist() == [7.0] * 3
    assert found[0, 2] == pytest.approx(3.08, abs=1e-6)
    assert encode_values(values, encoding="signal-u8")["signal_u8"].max() == LARGEST_STEP


@pytest.mark.parametrize(("encoding", "value"), [("signal-f16", 7e4), ("signal-u8", 3e38)])
def test_what_does_not_fit_is_refused(encoding: SignalEncoding, value: float) -> None:
    values = np.array([[-value, value]], dtype=np.float32)
    with pytest.raises(RecordError, match=f"{value:.3g}".replace("+", r"\+") + f" does not fit encoding={encoding}"):
        check_encodable(values, encoding=encoding)
    check_encodable(values, encoding="signal-f32")


def test_an_unknown_encoding_names_the_known_ones() -> None:
    assert [check_signal_encoding(name) for name in ENCODINGS] == list(ENCODINGS)
    with pytest.raises(RecordError, match=r"encoding=topk-u8 is unknown for signals.*signal-u8"):
        check_signal_encoding("topk-u8")


def test_a_measured_error_goes_through_a_manifest_and_adds_up() -> None:
    one, other = MeasuredError(0.5, 0.1), MeasuredError(0.25, 0.2)
    assert MeasuredError.of({"model": "m", **one.provenance()}) == one
    assert MeasuredError.of({"error_largest": "1", "error_rms": "wrong"}).provenance() == {}
    both = errors_together([(one, 3.0), (other, 1.0), (MeasuredError(), 0.0)])
    assert both.largest == 0.5
    assert both.rms == pytest.approx(math.sqrt((3 * 0.01 + 0.04) / 4))
    assert math.isnan(errors_together([(one, 3.0), (MeasuredError(), 1.0)]).largest)
    assert math.isnan(errors_together([]).rms)
