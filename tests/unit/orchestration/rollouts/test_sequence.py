"""One sequence: whose turn it is, what is asked next, and with which noise."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from local_engines import IDENTITY

from cache import GenerateRequest, ScoreRequest, TeacherRecord
from cache.keys import sequence_key
from cache.records import Finish
from orchestration.rollouts.sequence import Growing, RolloutPrompt, Sampling, run_noise

PROMPT = (5, 6, 7)
SAMPLING = Sampling(alpha=0.5, seed=(1,), version=3, max_new_tokens=20, stop_ids=(2,), k=4)
BLOCKS = {"student": 4, "teacher": 4}


def growing(**changed: object) -> Growing:
    return Growing(RolloutPrompt(PROMPT, number=0), replace(SAMPLING, **changed), block_tokens=BLOCKS)  # type: ignore[arg-type]


def run(sequence: Growing, *tokens: int, finish: Finish = "length", logprob: float | None = None) -> TeacherRecord:
    """What an engine says to the next request of a sequence."""
    token_ids = np.array([*sequence.tokens, *tokens], dtype=np.int32)
    return TeacherRecord(
        key=sequence_key(IDENTITY.digest(), token_ids, len(sequence.tokens)),
        token_ids=token_ids,
        prompt_len=len(sequence.tokens),
        finish=finish,
        origin="decode",
        target_logprobs=None if logprob is None else np.full(len(tokens), logprob, dtype=np.float32),
    )


def test_noise_depends_on_all_that_it_should() -> None:
    terms = [((1,), 0, 0), ((2,), 0, 0), ((1, 0), 0, 0), ((1,), 1, 0), ((1,), 0, 1)]
    seeds = {
        run_noise(seed, version=version, number=number, who=who)
        for seed, version, number in terms
        for who in ("student", "teacher", "coins")
    }
    assert len(seeds) == 15 and all(0 <= seed < 2**63 for seed in seeds)


def test_each_run_of_equal_coins_is_one_request() -> None:
    sequence = growing()
    roles, lengths, come_back = [], [], []
    while not sequence.finish:
        asked = sequence.next_request()
        assert isinstance(asked.request, GenerateRequest)
        assert asked.request.prompt_ids == tuple(sequence.tokens)
        # The student's own log-probability is needed; of the teacher's tokens the text is enough.
        assert asked.k == (1 if sequence.next_role == "student" else 0)
        roles.append(sequence.next_role)
        lengths.append(asked.request.max_new_tokens)
        come_back.append(asked.comes_back)
        sequence.take(run(sequence, *[9] * lengths[-1]))
    assert sum(lengths) == 20 and len(roles) > 4
    assert all(one != other for one, other in pairwise(roles))
    # Whoever's last run it is need not keep anything.
    assert come_back == [*[True] * (len(roles) - 2), False, False]
    assert not sequence.next_request().comes_back


@pytest.mark.parametrize(("alpha", "role"), [(0.0, "student"), (1.0, "teacher")])
def test_without_a_mixture_one_of_the_two_writes_everything_in_one_request(alpha: float, role: str) -> None:
    sequence = growing(alpha=alpha)
    asked = sequence.next_request().request
    assert isinstance(asked, GenerateRequest)
    assert (sequence.next_role, asked.max_new_tokens, asked.stop_ids, asked.temperature) == (role, 20, (2,), 1.0)
    assert asked.sampling_seed == run_noise((1,), version=3, number=0, who=role)


def test_a_sequence_that_stopped_is_scored_by_the_teacher_and_keeps_who_drew_what() -> None:
    sequence = growing(alpha=0.0)
    assert sequence.take(run(sequence, 9, 8, 2, finish="stop", logprob=-1.5)) == 3
    assert (sequence.finish, sequence.written, sequence.next_role) == ("stop", 3, "teacher")
    asked = sequence.next_request()
    assert (asked.request, asked.k) == (ScoreRequest((5, 6, 7, 9, 8, 2), 3), 4)
    scores = replace(run(growing(), 9, 8, 2, finish="given", logprob=-0.5), origin="prefill")
    found = sequence.sampled(scores)
    assert (found.record.finish, found.record.policy_version) == ("stop", 3)
    assert found.sources.tolist() == [False] * 3
    assert found.student_logprobs.tolist() == [-1.5] * 3


def test_what_an_engine_has_to_compute_again_lies_outside_its_whole_blocks() -> None:
    sequence = growing()
    computed = {"student": 0, "teacher": 0}
    again = 0
    while not sequence.finish:
        role, request = sequence.next_role, sequence.next_request().request
        assert isinstance(request, GenerateRequest)
        again += computed[role] % 4
        sequence.take(run(sequence, *[9] * request.max_new_tokens))
        computed[role] = len(sequence.tokens) - 1
    assert sequence.recomputed == again > 0
