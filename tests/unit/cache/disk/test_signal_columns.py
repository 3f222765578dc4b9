from __future__ import annotations

import itertools

import numpy as np
import pytest
from signal_builders import CLASSES, ENCODINGS, SPANS, STATES, TAGS, ask, respond

from cache.disk.columns import SegmentSize, layouts
from cache.disk.packing import pack_signals
from cache.disk.signal_columns import asked_columns, signal_of
from cache.disk.signal_encoding import HELD, SignalEncoding
from cache.signals import Signal

ASKED = [CLASSES, TAGS, SPANS, *STATES, Signal("state", layer=2**15 - 1, position="last")]


def test_what_was_asked_comes_back() -> None:
    columns = asked_columns([respond(ask([3, 4], signal)) for signal in ASKED])
    numbers = zip(*(columns[name].tolist() for name in ("signal", "layer", "place")), strict=True)
    assert [signal_of(*each) for each in numbers] == ASKED


def test_numbers_that_no_writer_writes_stand_for_nothing() -> None:
    for signal, layer, place in itertools.product(range(256), (-2, -1, 0, 5), (0, 2, 3, 254, 255)):
        found = signal_of(signal, layer, place)
        known = (signal < 3 and (layer, place) == (-1, 255)) or (signal == 3 and layer >= 0 and place < 3)
        assert (found is not None) == known, (signal, layer, place)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_fill_value_can_be_data(encoding: SignalEncoding) -> None:
    from cache.disk.columns import _fill

    size = SegmentSize(rows=3, scored_rows=3, tokens=9, k=4, chunk_rows=3, encoding=encoding)
    fills = {name: _fill(name, layout) for name, layout in layouts(size).items()}
    assert fills["place"] not in (*range(3), 255)
    assert fills["signal"] not in range(4) and fills["layer"] < -1
    assert np.isnan(fills[HELD[encoding][0]]) or fills["signal_u8"] == 255


@pytest.mark.parametrize("order", ["together", "apart"])
def test_the_tokens_of_a_text_cost_little_from_its_second_signal_on(order: str) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 30_000, size=30).tolist() for _ in range(200)]
    signals = [Signal("state", layer=layer, position="first") for layer in range(12)]
    requests = [ask(text, signal) for text in texts for signal in signals]
    if order == "apart":
        requests = [ask(text, signal) for signal in signals for text in texts]
    many = pack_signals([respond(request, width=4) for request in requests], encoding="signal-u8")
    one = pack_signals([respond(ask(text, signals[0]), width=4) for text in texts], encoding="signal-u8")
    assert len(many.objects["token_ids/c/0"]) < 1.6 * len(one.objects["token_ids/c/0"])
