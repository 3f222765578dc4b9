"""Sampling whole rollouts from b(y_t) = alpha p + (1 - alpha) q, teacher p and student q, with one engine of each.

Who draws a token is decided by a coin of its own, Bernoulli(alpha), before anything is written; given the coin the
token comes from p or from q, so its marginal is b exactly. A run of equal coins is one request to one engine, and run
lengths are geometric: there is no lockstep of tokens, and no engine ever sees the other's probabilities. (Mixing
logits instead of probabilities would give another distribution; MiniLLM, arXiv 2306.08543, mixes probabilities.)

Engines work in turns (`turns`). A sequence whose run is over waits for the other engine while the rest of its
batch goes on, and an engine hands over as soon as a share of its sequences wait. A finished sequence is scored in the
teacher's next turn, once, while others still grow; with alpha = 0 that is all that the teacher does. Engines with
processors of their own work at the same time. On a shared CPU one role works at a time: side by side, both took
smaller batches and a third more processor time (SmolLM2-135M and 20 of its 30 layers, 32 sequences of 64 tokens).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from cache import TeacherRecord
from cache.protocols import Failure
from orchestration.rollouts.sequence import Growing, Role, RolloutPrompt, Sampled, Sampling
from orchestration.rollouts.turns import Answered, RolloutEngine, RolloutPool, Tagged

LEFT_BEHIND: dict[Role, float] = {"student": 0.5, "teacher": 0.25}
"""The share of its sequences that an engine leaves unfinished when it hands over. The longest run of a batch would
otherwise be waited for: with a teacher that leaves none a rollout took up to 8 % longer (same pair and sizes). Shares
from 0.3 and 0.1 to 0.7 and 0.4 were as good."""


@dataclass(slots=True)
class Tally:
    """What a rollout took.

    `rounds` are turns of an engine. Drawn tokens are response tokens, scored ones whole sequences (the prompt too).
    `recomputed_tokens` were computed before by the same engine and lay outside its whole KV blocks when the sequence
    came back. `scoring_seconds` is what scoring took after the last token was drawn. `failures` counts dropped
    sequences by reason.
    """

    rounds: int = 0
    student_tokens: int = 0
    teacher_tokens: int = 0
    scored_tokens: int = 0
    scored_sequences: int = 0
    scorings: int = 0
    recomputed_tokens: int = 0
    sampling_seconds: float = 0.0
    scoring_seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def scoring_passes(self) -> float:
        """Passes of the teacher over a sequence to score it."""
        return self.scorings / max(self.scored_sequences, 1)


def sample_rollout(
    prompts: Sequence[RolloutPrompt],
    *,
    student: RolloutPool,
    teacher: RolloutPool,
    sampling: Sampling,
    spend: Callable[[int], None] = lambda _: None,
) -> tuple[list[Sampled], Tally]:
    """One response to each prompt, scored by the teacher.

    The tokens depend on the seed alone, as far as an engine's numerics do not depend on its batches.

    Args:
        prompts: Numbers are unique.
        student: Engines with the student's weights; a sequence stays with one of them.
        teacher: Engines with the teacher's.
        sampling: How each of them is sampled.
        spend: Called with the number of teacher tokens as they are spent, also by a rollout that becomes void later.

    Returns:
        The sequences in the order of `prompts`, without those that an engine could not continue or score.

    Raises:
        EngineError: an engine died. Nothing of the rollout is kept, since what had finished by then is biased towards
            short sequences.
    """
    blocks: dict[Role, int] = {"student": student.block_tokens, "teacher": teacher.block_tokens}
    queues = [_EngineQueue("student", each) for each in student.engines()] + [
        _EngineQueue("teacher", each) for each in teacher.engines()
    ]
    rollout = _Rollout(
        prompts,
        sampling=sampling,
        block_tokens=blocks,
        queues=queues,
        spend=spend,
        at_once=min(student.capacity, teacher.capacity),
        one_role=student.shares_processor and teacher.shares_processor,
    )
    try:
        rollout.run()
    finally:
        for queue in queues:
            queue.engine.finish()
    return [rollout.done[prompt.number] for prompt in prompts if prompt.number in rollout.done], rollout.tally


@dataclass(slots=True)
class _EngineQueue:
    """An engine, what waits for its next turn, and how much it has taken in and not finished."""

    role: Role
    engine: RolloutEngine
    waiting: list[Tagged] = field(default_factory=list)
    taken: int = 0
    turn: Future[list[Answered]] | None = None

    @property
    def load(self) -> int:
        return len(self.waiting) + self.taken

    def start(self, threads: ThreadPoolExecutor) -> None:
        asked, self.waiting = self.waiting, []
        self.taken += len(asked)
        self.turn = threads.submit(self.engine.turn, asked, leave=int(self.taken * LEFT_BEHIND[self.role]))


class _Rollout:
    """All sequences of a rollout, and the engine queues between which they go to and fro."""

    def __init__(
        self,
        prompts: Sequence[RolloutPrompt],
        *,
        sampling: Sampling,
        block_tokens: Mapping[Role, int],
        queues: Sequence[_EngineQueue],
        spend: Callable[[int], None],
        at_once: int,
        one_role: bool,
    ) -> None:
        self.done: dict[int, Sampled] = {}
        self._spend = spend
        self.tally = Tally()
        self._to_begin = list(reversed(prompts))
        self._sampling, self._block_tokens, self._queues = sampling, block_tokens, queues
        self._at_once, self._one_role = at_once, one_role
        self._growing: dict[int, Growing] = {}
        self._started = time.monotonic()

    def run(self) -> None:
        with ThreadPoolExecutor(len(self._queues)) as threads:
            while True:
                while self._to_begin and len(self._growing) < self._at_once:
                    self._send(Growing(self._to_begin.pop(), self._sampling, block_tokens=self._block_tokens))
                self._start(threads)
                turns = [queue.turn for queue in self._queues if queue.turn is not None]
                if not turns:
                    break
                wait(turns, return_when=FIRST_COMPLETED)
                for queue in self._queues:
                    if queue.turn is not None and queue.turn.done():
                        self._collect(queue)
        self.tally.scoring_seconds = time.monotonic() - self._started - self.tally.sampling_seconds

    def _start(self, threads: ThreadPoolExecutor) -> None:
        """Let idle engines with work begin a turn; of one role alone where the roles share a processor."""
        idle = [queue for queue in self._queues if queue.turn is None and queue.load]
        if self._one_role and idle:
            if any(queue.turn for queue in self._queues):
                return
            # The role with most to do: its batches are the fullest.
            loads = Counter[Role]()
            for queue in idle:
                loads[queue.role] += queue.load
            idle = [queue for queue in idle if queue.role == max(loads, key=lambda role: loads[role])]
        for queue in idle:
            queue.start(threads)
            self.tally.rounds += 1

    def _send(self, sequence: Growing) -> None:
        self._growing[sequence.number] = sequence
        queues = [queue for queue in self._queues if queue.role == sequence.next_role]
        queues[sequence.number % len(queues)].waiting.append((sequence.number, sequence.next_request()))

    def _collect(self, queue: _EngineQueue) -> None:
        assert queue.turn is not None
        answers, queue.turn = queue.turn.result(), None
        queue.taken -= len(answers)
        for number, outcome in answers:
            sequence = self._growing.pop(number)
            if isinstance(outcome, Failure):
                self.tally.failures[outcome.reason] += 1
            elif sequence.finish:
                self._settle(sequence, outcome)
            else:
                self._extend(sequence, outcome, role=queue.role)

    def _extend(self, sequence: Growing, outcome: TeacherRecord, *, role: Role) -> None:
        drawn = sequence.take(outcome)
        if role == "student":
            self.tally.student_tokens += drawn
        else:
            self.tally.teacher_tokens += drawn
            self._spend(drawn)
        if sequence.finish:
            self.tally.scorings += 1
            self.tally.sampling_seconds = time.monotonic() - self._started
        self._send(sequence)

    def _settle(self, sequence: Growing, scores: TeacherRecord) -> None:
        self.done[sequence.number] = sequence.sampled(scores)
        self.tally.scored_sequences += 1
        self.tally.scored_tokens += len(sequence.tokens)
        self._spend(len(sequence.tokens))
        self.tally.recomputed_tokens += sequence.recomputed
