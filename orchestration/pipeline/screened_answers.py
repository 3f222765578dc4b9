"""What a teacher wrote, looked through before anybody learns it (`configs.screening`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from cache import TeacherCache, TeacherRecord
from cache.answers import Request
from orchestration.inputs.screen import Screen, Screened, count_looks
from orchestration.inputs.teachers import Teacher
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.plan.requests import SequenceSet

ANSWERS_AT_ONCE = 1024


def unlearned_answers(
    sets: Sequence[SequenceSet], *, teacher: Teacher, cache: TeacherCache, settings: RunSettings, journal: Journal
) -> dict[Request, str]:
    """The answers of these sets that nobody is to learn, and why; what was found in all of them is said and tracked.

    On the test split, where nobody learns, answers are counted and stay.

    Raises:
        CacheError: an answer cannot be read.
        ConfigError: a recogniser is not installed.
    """
    screen = Screen.of(settings.config, answers=True)
    gone = dict[Request, str]()
    for part in sets if screen.is_on else ():
        if part.source != "teacher":
            continue
        counts = Counter[str]()
        for request, record in _answers(part.requests, cache=cache):
            text = teacher.files.tokenizer.decode(record.response_ids.tolist(), skip_special_tokens=True)
            looks = [screen.look(str(text))]
            reason = screen.why_dropped(looks) if part.split != "test" else None
            if reason is not None:
                gone[request] = f"its answer is not learned: {reason}"
            count_looks(counts, looks, dropped=reason is not None)
        found = Screened.of(counts)
        journal.console.say(f"{part.name}: {found.in_words('answers')}")
        journal.tracker.log_final("fill", found.metrics(part.name))
    return gone


def _answers(requests: Sequence[Request], *, cache: TeacherCache) -> Iterator[tuple[Request, TeacherRecord]]:
    for at in range(0, len(requests), ANSWERS_AT_ONCE):
        keys = cache.lookup(requests[at : at + ANSWERS_AT_ONCE])
        held = [(request, key) for request, key in zip(requests[at:], keys, strict=False) if key is not None]
        records = cache.get_many([key for _, key in held], k=0)
        yield from ((request, record) for (request, _), record in zip(held, records, strict=True) if record is not None)
