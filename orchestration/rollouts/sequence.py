"""One sequence of a rollout: whose turn it is, what is asked next, and with which noise.

Who draws a token is decided by a coin of its own before anything is written, and a run of equal coins is one request.

An engine's seed of a request follows from (identity, prefix, sampling seed, replicate). Two sequences of one prompt
have the same first prefix, a rollout by unchanged weights has the identity of the one before, and a student that
equals its teacher would have the teacher's identity. So the sampling seed is a digest of the rollout's seed, the
version of the weights, the sequence's number and who draws: no two of these share noise. Runs of one sequence differ in
their prefix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

from cache import GenerateRequest, ScoreRequest, TeacherRecord
from cache.canonical import canonical
from cache.keys import engine_seed
from cache.records import Finish
from teacher_server.requests import Asked

Role = Literal["student", "teacher"]


@dataclass(frozen=True, slots=True)
class RolloutPrompt:
    """A prompt, and its position in the rollout, which is part of the sequence's noise."""

    token_ids: tuple[int, ...]
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """A sequence of S response tokens.

    `record` holds the teacher's scores, how the sequence ended ("stop" or "length") and the version of the student.
    `sources` is True where the teacher drew the token; `student_logprobs` is the student engine's log q, in nats, of
    the tokens that it drew, and NaN elsewhere.
    """

    record: TeacherRecord
    sources: Bool[np.ndarray, " S"]
    student_logprobs: Float32[np.ndarray, " S"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How all sequences of a rollout are sampled, at temperature 1.

    Attributes:
        alpha: Probability that the teacher draws a token.
        seed: Of all coins and noise; give every rollout another one.
        version: Of the student's weights; stamped on the records.
        max_new_tokens: Longest response; a sequence that reaches it has finish "length".
        stop_ids: A token of these, whoever draws it, is the last of its sequence.
        k: The teacher's log-probabilities kept a position.
    """

    alpha: float
    seed: tuple[int, ...]
    version: int
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    k: int


def run_noise(seed: tuple[int, ...], *, version: int, number: int, who: str) -> int:
    """The sampling seed (63 bits) of what `who` draws for sequence `number` of a rollout."""
    return engine_seed(
        hashlib.sha256(canonical("stillroom/rollout/1", len(seed), *seed, version, number, who)).digest()
    )


class Growing:
    """A sequence that is being written; `tokens` are those of the prompt and of the response so far.

    `finish` is None until its last token is drawn. `recomputed` counts tokens as `mixture.Tally` does; `block_tokens`
    are the tokens of a KV block of either engine.
    """

    def __init__(self, prompt: RolloutPrompt, sampling: Sampling, *, block_tokens: Mapping[Role, int]) -> None:
        self.number, self.prompt_len, self.tokens = prompt.number, len(prompt.token_ids), list(prompt.token_ids)
        self.finish: Finish | None = None
        self.recomputed = 0
        self._sampling, self._block_tokens = sampling, block_tokens
        self._noise = {
            who: run_noise(sampling.seed, version=sampling.version, number=prompt.number, who=who)
            for who in ("coins", "student", "teacher")
        }
        self._coins = np.random.default_rng(self._noise["coins"]).random(sampling.max_new_tokens) < sampling.alpha
        self._logprobs = np.full(sampling.max_new_tokens, np.nan, dtype=np.float32)
        self._computed: dict[Role, int] = {"student": 0, "teacher": 0}

    @property
    def written(self) -> int:
        """Response tokens so far."""
        return len(self.tokens) - self.prompt_len

    @property
    def next_role(self) -> Role:
        """Whose turn it is; a finished sequence is the teacher's to score."""
        return "teacher" if self.finish or self._coins[self.written] else "student"

    def next_request(self) -> Asked:
        """The next run, or the scores of what was written."""
        if self.finish:
            return Asked(ScoreRequest(tuple(self.tokens), self.prompt_len), self._sampling.k)
        role, ahead = self.next_role, self._coins[self.written :]
        turns = np.flatnonzero(ahead != ahead[0])
        self.recomputed += self._computed[role] % self._block_tokens[role]
        request = GenerateRequest(
            tuple(self.tokens),
            stop_ids=self._sampling.stop_ids,
            max_new_tokens=int(turns[0]) if len(turns) else len(ahead),
            temperature=1.0,
            sampling_seed=self._noise[role],
        )
        later = ahead[request.max_new_tokens :] == ahead[0]
        # The student's own log-probability is that of the token it drew; of the teacher's tokens the text is enough.
        return Asked(request, 1 if role == "student" else 0, comes_back=bool(later.any()))

    def take(self, record: TeacherRecord) -> int:
        """Append the run that `record` ends with; the number of its tokens."""
        role, first = self.next_role, self.written
        self.tokens += record.response_ids.tolist()
        if record.target_logprobs is not None:
            self._logprobs[first : self.written] = record.target_logprobs
        # The engine that drew the last token of a run has not computed its keys and values yet.
        self._computed[role] = len(self.tokens) - 1
        if record.finish == "stop":
            self.finish = "stop"
        elif self.written == self._sampling.max_new_tokens:
            self.finish = "length"
        return record.response_len

    def sampled(self, scores: TeacherRecord) -> Sampled:
        """The finished sequence with the teacher's scores of it."""
        assert self.finish is not None
        return Sampled(
            record=replace(scores, finish=self.finish, policy_version=self._sampling.version),
            sources=self._coins[: self.written],
            student_logprobs=self._logprobs[: self.written],
        )
