"""The rows of the golden cache, whose files never change."""

from __future__ import annotations

from store_builders import VOCAB, answer, make_record, make_request

from cache.records import GenerateRequest, TeacherRecord
from cache.sampling import sample_rows

REQUESTS = [make_request([3, 4, 5]), make_request([3, 4, 6], limit=4), make_request([3, 4, 7], temperature=0.7, seed=9)]


def golden_records() -> list[tuple[str, int, list[tuple[TeacherRecord, GenerateRequest | None]]]]:
    """(encoding, vocabulary, records with the requests they answer) of each segment of the golden cache."""
    stop, cut, sampled = (
        answer(REQUESTS[0], k=8),
        answer(REQUESTS[1], length=4, finish="length", k=8),
        answer(REQUESTS[2], k=8),
    )
    given = make_record([8, 9, 10, 11, 12], prompt_len=1, k=8, finish="given", version=17)
    text = answer(make_request([3, 4, 8]), k=0)
    whole = make_record([2, 3, 4, 1], prompt_len=2, k=6, vocab=6)
    return [
        ("topk-u8", VOCAB, [stop, cut, sampled, (given, None)]),
        ("topk-u8", VOCAB, [text]),
        ("topk-f16", VOCAB, [(make_record([20, 21, 22, 23], prompt_len=1, k=5), None)]),
        ("full", 6, [(whole, None)]),
        ("sampled", 6, [(sample_rows(whole, draws=40, seed=3), None)]),
    ]
