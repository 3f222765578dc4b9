"""What the audits of an experiment will ask, and about how long that takes; and what of them is refused beforehand.

Imports no network: a plan is there at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from configs import DataError, DistillConfig
from configs.audit import AskedAudits, AuditName
from evaluation.side_effects.preferences import own_pairs
from evaluation.side_effects.refusing import ANSWER_TOKENS, own_requests
from orchestration.audits.pair_files import read_pairs
from orchestration.inputs.shapes import PlannedShape
from orchestration.outputs.console import clock
from orchestration.plan.duration import audit_seconds
from orchestration.plan.hardware import Hardware, cpu_count

PAIR_TOKENS = 24
"""Of a sentence of a pair with what stands before it, about (those that come along have 9 to 20)."""

REQUEST_TOKENS = 40
"""Of a request in a chat template, about."""


def require_audits(asked: AskedAudits | None) -> None:
    """Refuse files of pairs that cannot be used, before anything is paid for; their paths are real.

    Raises:
        DataError: naming the file, and the cure.
    """
    for at, path in enumerate(() if asked is None else asked.pairs):
        try:
            read_pairs(path)
        except DataError as error:
            raise DataError(f"audit.pairs.{at}: {error}") from error


def planned_audits(config: DistillConfig, *, teacher: PlannedShape, hardware: Hardware) -> tuple[str, ...]:
    """What a plan says of the audits that follow, a line each; nothing where none does. The paths are real."""
    if config.audit is None or not config.audit.wanted:
        return ()
    starts = {student.init.model_dump_json() for student in config.students.values()}
    models = len(config.students) + len(starts) + 1
    read, written = (sum(each) for each in zip(*_tokens(config, models=models), strict=True))
    seconds = audit_seconds(
        teacher,
        read_tokens=read,
        written_tokens=written,
        accelerator=hardware.accelerator,
        cpus=hardware.cpus or cpu_count(),
    )
    return (
        f"Audits follow the comparison, of {len(config.students)} students beside their teacher and what they began "
        f"as, in about {clock(seconds)}; what they find changes no student:",
        *(f"  {name}: {_asks(name, config.audit)}" for name in config.audit.wanted),
    )


def _asks(name: AuditName, asked: AskedAudits) -> str:
    if name == "privacy":
        return f"up to {asked.rows:,} training rows and as many held-out rows are read by each of them"
    if name == "bias":
        return f"{_pairs(asked):,} pairs of sentences, and test prompts about somebody of the other gender"
    return f"{len(own_requests()):,} requests, answered in up to {ANSWER_TOKENS} tokens by each of them"


def _tokens(config: DistillConfig, *, models: int) -> Iterator[tuple[float, float]]:
    """Tokens that each audit has models read and write, about: a row is taken for half as long as it may be."""
    assert config.audit is not None
    asked = config.audit
    row = (config.data.max_prompt_tokens + config.generation.max_new_tokens) / 2
    if "privacy" in asked.wanted:
        # What the teacher believes of them is kept.
        yield 2.0 * asked.rows * row * (models - 1), 0.0
    if "bias" in asked.wanted:
        yield 2.0 * _pairs(asked) * PAIR_TOKENS * models, 0.0
    if "refusals" in asked.wanted:
        requests = len(own_requests()) * models
        yield float(requests * REQUEST_TOKENS), float(requests * ANSWER_TOKENS)


def _pairs(asked: AskedAudits) -> int:
    return len(own_pairs()) + sum(len(read_pairs(path)) for path in asked.pairs)
