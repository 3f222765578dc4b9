"""What an engine answered, as records."""

from __future__ import annotations

from flat_containers import Completion, Output, V, container, logprobs

from cache.protocols import Failure
from cache.records import GenerateRequest, TeacherRecord, validate_record
from teacher_server.answers import answer
from teacher_server.requests import Asked


def written(completion: Completion, *, vocab: int = V) -> TeacherRecord | Failure:
    asked = Asked(GenerateRequest((1, 2), (5,), 3), 4)
    return answer(asked, Output([completion]), identity_digest="x", vocab=vocab)  # type: ignore[arg-type]


def test_a_completion_becomes_a_record() -> None:
    record = written(Completion(logprobs=container(logprobs(3), [3, 4, 5], k=4)))
    assert isinstance(record, TeacherRecord)
    validate_record(record)
    assert (record.token_ids.tolist(), record.prompt_len, record.finish) == ([1, 2, 3, 4, 5], 2, "stop")


def test_what_the_engine_could_not_do_is_a_failure_with_its_reason() -> None:
    aborted, strange = written(Completion(finish_reason="abort")), written(Completion(token_ids=(3, 4, V)))
    crowded = written(Completion(logprobs=container(logprobs(3), [3, 4, 5], k=4)), vocab=6)
    assert isinstance(aborted, Failure) and "abort" in aborted.reason
    assert isinstance(strange, Failure) and f"token id {V}" in strange.reason
    assert isinstance(crowded, Failure) and "lower k" in crowded.reason
