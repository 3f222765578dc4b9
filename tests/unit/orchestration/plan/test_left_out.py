"""What a plan leaves out is told apart: what could not be answered can be asked again, what was forgotten cannot."""

from __future__ import annotations

from cache import GenerateRequest
from cache.erasures import FORGOTTEN
from orchestration.plan.left_out import left_out_in_words


def ask(prompt: int) -> GenerateRequest:
    return GenerateRequest((prompt,), stop_ids=(0,), max_new_tokens=5)


def test_both_kinds_are_counted_apart_and_neither_is_said_where_there_is_none() -> None:
    refused = {ask(1): "too long", ask(2): FORGOTTEN, ask(3): FORGOTTEN}
    first, second = left_out_in_words(refused, unanswered="were refused", what="rows")
    assert first == "1 rows were refused: `distill cache forget --failures --yes` with this config asks again."
    assert second.startswith("2 rows were forgotten (`distill cache forget`), are not asked")
    assert left_out_in_words({ask(1): "too long"}, unanswered="were refused", what="rows") == [first]
    assert left_out_in_words({}, unanswered="were refused", what="rows") == []
