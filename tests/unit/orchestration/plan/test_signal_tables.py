"""What people read of a plan with signals."""

from __future__ import annotations

import io

from local_signals import STATE, WIDTHS, texts
from signal_builders import CLASSES

from cache import SignalRequest
from orchestration.inputs.task_texts import ReadExample
from orchestration.outputs.console import Console
from orchestration.plan.duration import FillTime
from orchestration.plan.signal_requests import NoSignals, SignalHoldings, SignalSet, plan_signals
from orchestration.plan.signal_tables import show_signal_plan

CUT = ReadExample((1, 2, 3), 3, (), (), (), cut=True)
TRAIN = SignalSet("train", (*texts(3), CUT), (CLASSES, STATE))


class Everything:
    """A cache that lacks nothing."""

    def missing(self, requests: object) -> tuple[int, ...]:
        return ()


class Refused:
    """A teacher that never answers about one text."""

    def reason(self, request: SignalRequest) -> str | None:
        return "too long" if request.token_ids == CUT.token_ids else None


def shown(cache: SignalHoldings, *, refused: Refused | None = None) -> str:
    stream = io.StringIO()
    plan = plan_signals([TRAIN], cache=cache, widths=WIDTHS, encoding="signal-f32", refused=refused)
    time = FillTime(75.0, gpus=0, read_rate=1.0, write_rate=0.0, assumed=False)
    show_signal_plan(plan, time=time, max_tokens=5, console=Console(stream))
    return " ".join(stream.getvalue().split())


def test_misses_are_shown_with_what_they_cost() -> None:
    text = shown(NoSignals())
    # 3 texts of 5 tokens and one of 3, two signals each.
    assert "train │ 4 │ 1 │ 8 │ 0 │ 8 │ 18" in text
    assert (
        "18 teacher tokens, at most 0.0 MiB of cache (class_logits: 24 bytes a row; state of layer 1, first: 16" in text
    )
    assert "about 1m 15s with the engine's start" in text


def test_texts_that_are_cut_are_said_in_any_case() -> None:
    said = "1 of 4 texts are longer than teacher.max_tokens=5 and are cut"
    assert said in shown(NoSignals())
    held = shown(Everything())
    assert said in held and "Nothing to ask: every signal is in the cache" in held


def test_what_was_refused_is_said() -> None:
    assert "2 signals were refused by the teacher before" in shown(NoSignals(), refused=Refused())
