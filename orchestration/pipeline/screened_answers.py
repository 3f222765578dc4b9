"""What a teacher wrote, looked through before anybody learns it (`configs.screening`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from cache import GenerateRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from orchestration.cluster.door_pool import DoorPool
from orchestration.cluster.engine_pool import EnginePool
from orchestration.inputs.exchanges import Exchange
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.screen import Look, Screen, Screened, count_looks
from orchestration.inputs.teachers import Teacher
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.plan.requests import SequenceSet

ANSWERS_AT_ONCE = 1024


class Answered(Protocol):
    """A teacher that has answered, its cache, and its engines or its door."""

    @property
    def teacher(self) -> Teacher:
        """Who it is."""
        ...

    @property
    def cache(self) -> TeacherCache:
        """Where its answers are."""
        ...

    @property
    def pool(self) -> EnginePool | DoorPool:
        """Who answered."""
        ...

    @property
    def sets(self) -> list[SequenceSet]:
        """What it was asked."""
        ...


def unlearned_answers(
    answered: Answered, *, prompts: PromptSet, settings: RunSettings, journal: Journal
) -> dict[Request, str]:
    """The answers that nobody is to learn, and why; what was found in all of them is said and tracked.

    On the test split, where nobody learns, answers are counted and stay. A guard reads each with its prompt, and has
    the teacher's engines ended first if it reads anything.

    Raises:
        CacheError: an answer cannot be read.
        ConfigError: a recogniser is not installed, or a guard gives no verdicts.
    """
    screen = Screen.of(settings.config, answers=True, guard=settings.guard)
    gone = dict[Request, str]()
    if not screen.is_on:
        return gone
    said = {prompt.asked_ids: prompt.text for rows in prompts.splits.values() for prompt in rows}
    try:
        for part in answered.sets:
            if part.source != "teacher":
                continue
            counts = Counter[str]()
            for request, looks in _looked_at(part.requests, answered, screen=screen, said=said):
                reason = screen.why_dropped(looks) if part.split != "test" else None
                if reason is not None:
                    gone[request] = f"its answer is not learned: {reason}"
                count_looks(counts, looks, dropped=reason is not None)
            found = Screened.of(counts)
            journal.console.say(f"{part.name}: {found.in_words('answers')}")
            journal.tracker.log_final("fill", found.metrics(part.name))
    finally:
        screen.rest()
    return gone


def _looked_at(
    requests: Sequence[Request], answered: Answered, *, screen: Screen, said: Mapping[tuple[int, ...], str]
) -> Iterator[tuple[Request, list[Look]]]:
    """What is found in the answers that there are, lot by lot."""
    tokenizer = answered.teacher.files.tokenizer
    for lot in _answers(requests, cache=answered.cache):
        texts = tokenizer.batch_decode([record.response_ids for _, record in lot], skip_special_tokens=True)
        looks = [[screen.look(text)] for text in texts]
        asked = [said.get(prompt) or _read(answered.teacher, prompt) for prompt in map(_prompt_of, lot)]
        exchanges = [Exchange.of(prompt, text) for prompt, text in zip(asked, texts, strict=True)]
        found = screen.judged(list(zip(looks, exchanges, strict=True)), making_room=lambda: _end(answered.pool))
        yield from zip((request for request, _ in lot), found, strict=True)


def _prompt_of(answer: tuple[Request, TeacherRecord]) -> tuple[int, ...]:
    request, record = answer
    return request.prompt_ids if isinstance(request, GenerateRequest) else tuple(record.token_ids[: record.prompt_len])


def _read(teacher: Teacher, prompt: tuple[int, ...]) -> str:
    """A prompt that no row of the data has any more, as its tokens say it."""
    return str(teacher.files.tokenizer.decode(prompt, skip_special_tokens=True))


def _end(pool: EnginePool | DoorPool) -> None:
    """End engines that will be started again when they are asked again; a door takes no memory here."""
    if not isinstance(pool, DoorPool):
        pool.release()


def _answers(requests: Sequence[Request], *, cache: TeacherCache) -> Iterator[list[tuple[Request, TeacherRecord]]]:
    for at in range(0, len(requests), ANSWERS_AT_ONCE):
        asked = requests[at : at + ANSWERS_AT_ONCE]
        held = [(request, key) for request, key in zip(asked, cache.lookup(asked), strict=True) if key is not None]
        records = cache.get_many([key for _, key in held], k=0)
        yield [(request, record) for (request, _), record in zip(held, records, strict=True) if record is not None]
