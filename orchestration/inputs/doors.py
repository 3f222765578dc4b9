"""Where a teacher answers that no engine of this run is (`Door`), and the door of somebody else's Stillroom.

Who the teacher is, such a door says (docs/decisions/0039-a-served-teacher.md). Whatever of that is known here as well
is held against it: dtype and licence of the configuration, config.json and tokenizer of `teacher.model`, and its
weights where they are here. So rows are kept and found under the identity that the teacher would have in this process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import ClassVar, Protocol

import httpx

from cache import TeacherIdentity
from cache.failures import EngineVersion
from cache.identity import Identity
from configs import ConfigError, DistillConfig, DoorError, EngineError
from configs.doors import DoorConfig
from configs.schema import TeacherConfig
from configs.teachers import NOT_STATED, key_of_teacher
from orchestration.inputs.models import ModelFiles
from teacher_server.http.client import DoorTeacher, HttpTeacher
from teacher_server.http.connection import DoorSettings
from teacher_server.requests import StepwiseSource

UNKNOWN = "unknown"
"""Stands for the digest of weights that nobody could be asked for."""


class DoorSource(StepwiseSource, Protocol):
    """The teacher behind an open door."""

    @property
    def identity(self) -> Identity:
        """Who answers."""
        ...

    def close(self) -> None:
        """Close the connections; nothing under way is waited for."""
        ...


@dataclass(frozen=True, slots=True)
class Till:
    """What the teachers of an experiment that are paid by the token cost over all its starts: `spent` so far.

    `pay` counts more.
    """

    spent: float = 0.0
    pay: Callable[[float], None] = lambda _: None


class Door(Protocol):
    """Where a teacher answers: what it is called, and how it is asked."""

    @property
    def host(self) -> str:
        """What the place is called for people."""
        ...

    @property
    def label(self) -> str:
        """The teacher behind it, for people."""
        ...

    @property
    def capacity(self) -> int:
        """Requests under way at once."""
        ...

    @property
    def version(self) -> EngineVersion | None:
        """What may make it answer what it could not answer before; None where that is as with engines here."""
        ...

    def provenance(self) -> dict[str, str]:
        """What manifests record of who answers there."""
        ...

    def open(self, till: Till) -> tuple[DoorSource, str]:
        """The teacher, and what it gives, in a line for people.

        Raises:
            ConfigError: it is not the teacher that is wanted, or gives less.
            EngineError: it cannot be reached, or lets nobody in.
            DoorError: another teacher answers than before.
        """
        ...


@dataclass(frozen=True, slots=True)
class TeacherDoor:
    """A door, how it is asked, and what it says of the teacher."""

    settings: DoorSettings
    facts: DoorTeacher

    version: ClassVar[None] = None

    @property
    def host(self) -> str:
        """See `Door`."""
        return httpx.URL(self.settings.url).netloc.decode()

    @property
    def label(self) -> str:
        """See `Door`."""
        return f"{self.facts.name} behind {self.host}"

    @property
    def capacity(self) -> int:
        """See `Door`."""
        return self.settings.batches * self.settings.batch_rows

    @property
    def said(self) -> str:
        """Who answers, and what it gives, for people."""
        facts = self.facts
        return (
            f"{self.label} is {facts.identity.digest()[:12]}, licence {facts.licence or NOT_STATED}; it gives up to "
            f"{facts.most_k} log-probabilities a token, of sequences of up to {facts.max_model_len:,} tokens"
        )

    def provenance(self) -> dict[str, str]:
        """See `Door`. What engine answers there, its own manifests say."""
        return {"served_by": self.host}

    def open(self, till: Till) -> tuple[DoorSource, str]:
        """See `Door`; who asks pays nothing."""
        return HttpTeacher(self.settings), self.said


def open_doors(config: DistillConfig, *, patience_s: float | None = None) -> dict[str, TeacherDoor]:
    """The doors of all teachers that somebody else's Stillroom serves, by the names of these.

    Without `patience_s` a door that is away is waited for as long as the configuration says.

    Raises:
        ConfigError: the token is not there.
        DoorError: a door cannot be reached, lets nobody in, or lacks the teacher.
    """
    return {
        name: knock(each.serve, key=key_of_teacher(name), patience_s=patience_s)
        for name, each in config.every_teacher.items()
        if each.serve is not None
    }


def knock(door: DoorConfig, *, key: str, patience_s: float | None = None) -> TeacherDoor:
    """Ask a door who its teacher is; `key` is where the teacher stands in the configuration.

    Raises:
        ConfigError: the token is not there.
        DoorError: the door cannot be reached, lets nobody in, or lacks the teacher.
    """
    settings = settings_of(door, key=key)
    patience_s = door.patience_s if patience_s is None else min(patience_s, door.patience_s)
    try:
        with HttpTeacher(replace(settings, budget_s=patience_s)) as teacher:
            return TeacherDoor(settings, teacher.facts)
    except EngineError as error:
        raise DoorError(f"{key}.serve: {error}") from error


def settings_of(door: DoorConfig, *, key: str) -> DoorSettings:
    """How a door is asked, with the token that the environment has for it.

    Raises:
        ConfigError: it has none.
    """
    token = os.environ.get(door.token_env)
    if not token:
        raise ConfigError(
            f"{key}.serve.token_env={door.token_env} is not set in the environment: put a token of {door.host} into it "
            "(distill serve token new NAME, where the door is)"
        )
    return DoorSettings(door.url, token=token, teacher=door.teacher, budget_s=door.patience_s, ca_file=door.ca_file)


def weights_wanted(config: DistillConfig) -> str | None:
    """The first thing of an experiment that takes the weights of its first teacher, in words; None where nothing does.

    Of further teachers nothing does: they answer, and that is all.
    """
    for name, student in config.students.items():
        if student.init.model is None:
            return f"students.{name}.init is cut out of the teacher's weights"
        for number, stage in enumerate(student.stages):
            if stage.reads_live and student.teacher is None:
                return f"students.{name}.stages.{number} has the teacher beside it (teacher: live, or features)"
    if config.evaluation.exposure:
        return "evaluation.exposure=true reads with the teacher's weights"
    return None


def require_weights(config: DistillConfig, files: ModelFiles) -> None:
    """Refuse what takes the weights of the first teacher, where they are not here or nobody has them.

    Raises:
        ConfigError: naming it and the cure.
    """
    wanted, remote = weights_wanted(config), config.teacher.openai
    if wanted is not None and remote is not None:
        raise ConfigError(
            f"{wanted}, and nobody here has those of {remote.model} behind {remote.host} (teacher.model="
            f"{files.label} lends its tokenizer): name a model that the student starts from (init.model), or do without"
        )
    if wanted is not None and not files.has_weights:
        raise ConfigError(
            f"{wanted}, and teacher.model={files.label} holds none, because the teacher answers behind teacher.serve: "
            "name a directory with its weights, or do without"
        )


def require_same(
    key: str, door: TeacherDoor, files: ModelFiles, *, here: TeacherIdentity, terms: Iterator[str]
) -> TeacherIdentity:
    """Who the teacher at `key` of the configuration is, as its door says it and nothing here contradicts.

    `here` is what is known without the door; weights that are not here are `UNKNOWN`. `terms` are lines for what else
    the door does otherwise than it is wanted.

    Raises:
        ConfigError: what is known here is not what the door says; names both sides.
    """
    there = door.facts.identity
    differences = chain(
        other_identity(key, model=files.label, here=here, door=door.label, there=there),
        _other_tokens(key, files, door=door),
        terms,
    )
    if (line := next(differences, None)) is not None:
        raise ConfigError(line)
    assert isinstance(there, TeacherIdentity)
    return there


def other_identity(key: str, *, model: str, here: TeacherIdentity, door: str, there: Identity) -> Iterator[str]:
    """Lines for what differs between who a `model` is here and who is behind a `door`, the first cause first."""
    if not isinstance(there, TeacherIdentity):
        yield (
            f"{key}.serve: {door} is {there.provider}/{there.model}, whose weights nobody can hash, and "
            f"{key}.model={model} is a model of its own: ask that provider itself"
        )
        return
    ours, theirs = asdict(here), asdict(there)
    for field in ("dtype", "quantization"):
        if ours[field] != theirs[field]:
            yield (
                f"{key}.{field}={ours[field]}, and {door} has {field}={theirs[field]}, which are other numbers: "
                f"set {key}.{field} to {theirs[field]}, or ask another door"
            )
    if ours["weights_sha256"] == UNKNOWN:
        ours["weights_sha256"] = theirs["weights_sha256"]
    names = {"config_sha256": "another config.json", "weights_sha256": "other weights"}
    for field, what in names.items():
        if ours[field] != theirs[field]:
            yield (
                f"{key}.model={model} has {what} ({ours[field][:12]}) than {door} ({theirs[field][:12]}): "
                "name the model that is served there, or ask another door"
            )
    for field in ours:
        if ours[field] != theirs[field]:
            yield (
                f"{door} has {field}={theirs[field]}, and this installation {ours[field]}: ask a door of its version"
            )


def _other_tokens(key: str, files: ModelFiles, *, door: TeacherDoor) -> Iterator[str]:
    facts = door.facts
    if files.vocab != facts.vocab:
        yield (
            f"{key}.model={files.label} has a tokenizer of {files.vocab:,} tokens and {door.label} one of "
            f"{facts.vocab:,}: name the model that is served there"
        )
    if facts.vocab_sha256 is not None and facts.vocab_sha256 != files.vocab_sha256:
        yield (
            f"{key}.model={files.label} has a tokenizer whose ids mean other tokens ({files.vocab_sha256[:12]}) than "
            f"those of {door.label} ({facts.vocab_sha256[:12]}): name the model that is served there"
        )
    if files.stop_ids != facts.stop_ids:
        yield (
            f"{key}.model={files.label} ends at the tokens {_listed(files.stop_ids)} and {door.label} at "
            f"{_listed(facts.stop_ids)}: take tokenizer and generation_config.json of the model that is served there"
        )


def other_licence(key: str, here: str | None, *, door: str, there: str | None) -> Iterator[str]:
    """A line where a `door` states another licence than the configuration at `key`."""
    if there is not None and there != here:
        yield (
            f"{key}.licence={here or 'not set'}, and {door} is under {there}, whose duties students take over: set "
            f"{key}.licence to it"
        )


def too_much(key: str, teacher: TeacherConfig, *, door: TeacherDoor, longest: int) -> Iterator[str]:
    """Lines for what a language model is wanted to give to students of its kind and its door does not give."""
    facts = door.facts
    yield from other_licence(key, teacher.licence, door=door.label, there=facts.licence)
    if teacher.top_k > facts.most_k:
        yield (
            f"{key}.top_k={teacher.top_k} is more than the {facts.most_k} that {door.label} gives: lower it, or have "
            "teacher.top_k raised where the door is"
        )
    if longest > facts.max_model_len:
        yield (
            f"sequences of this experiment take up to {longest} tokens at once and {door.label} takes "
            f"{facts.max_model_len}: lower data.max_prompt_tokens or the longest max_new_tokens, or have "
            "runtime.teacher_engine.max_model_len raised where the door is"
        )


def _listed(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids))
