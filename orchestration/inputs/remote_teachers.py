"""A teacher behind a server of somebody else's that speaks the protocol of OpenAI (`teacher.openai`).

Nobody can hash its weights, so it is who the configuration declares it to be, and its rows are kept under that. Asked
it is only where rows are missing: then the server is tried (`teacher_server.remote.probing`), what it gives is held
against what the experiment needs, and what it says of a few fixed texts against what was noted beside its rows when it
was first asked. So nothing is paid for that cannot be used, and a model that was changed under its name is refused.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from cache.disk.directory import kept_fingerprint, open_directory
from cache.failures import EngineVersion
from cache.identity import RemoteTeacherIdentity
from configs import CacheError, ConfigError, DistillConfig, DoorError
from configs.doors import OpenAiConfig
from configs.schema import TeacherConfig
from configs.teachers import FIRST, key_of_teacher
from orchestration.inputs.doors import DoorSource, Till
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.spelling import spelling_of
from teacher_server.remote.calls import ServerSettings
from teacher_server.remote.openai import NO_SCORES, OpenAiTeacher, RemoteModel
from teacher_server.remote.probing import Abilities, Fingerprint
from teacher_server.remote.spending import Prices, Purse
from teacher_server.remote.tokens import RemoteTokens

TRIED_K = 20
"""Log-probabilities a token that most servers give at most; tried also where fewer are wanted, to say so."""


@dataclass(frozen=True, slots=True)
class RemoteDoor:
    """The server of the teacher of this `name`, in an experiment; see `orchestration.inputs.doors.Door`."""

    config: DistillConfig
    name: str
    files: ModelFiles

    @property
    def host(self) -> str:
        """See `Door`."""
        return self._server.host

    @property
    def label(self) -> str:
        """See `Door`."""
        return f"{self._server.model} behind {self._server.host}"

    @property
    def capacity(self) -> int:
        """See `Door`."""
        return self._server.concurrency

    @property
    def identity(self) -> RemoteTeacherIdentity:
        """Who it is declared to be."""
        declared = self._server.declared
        return RemoteTeacherIdentity(
            str(declared["provider"]), str(declared["model"]), str(declared["revision"]), self._server.epoch
        )

    @property
    def version(self) -> EngineVersion:
        """See `Door`: a longer sequence, another k; what a server learns meanwhile nobody tells."""
        return {"protocol": "openai", "top_k": self._teacher.top_k, "max_model_len": self.config.longest_asked}

    def provenance(self) -> dict[str, str]:
        """See `Door`."""
        return {
            "served_by": self.host,
            "declared": f"{self._server.model}, revision {self._server.revision}",
            "unverifiable": "it is who its provider says it is",
        }

    def open(self, till: Till) -> tuple[DoorSource, str]:
        """See `Door`. Nothing but a dozen short questions is asked before all is well."""
        remote, config = self._server, self.config
        settings = ServerSettings(
            remote.base_url,
            key=self._key(),
            at_once=remote.concurrency,
            requests_a_minute=remote.requests_a_minute,
            budget_s=remote.patience_s,
            ca_file=remote.ca_file,
        )
        prices = Prices() if remote.price is None else Prices(remote.price.read, remote.price.written)
        limit = None if remote.price is None else config.budgets.max_teacher_money
        model = RemoteModel(
            remote.model,
            revision=remote.revision,
            provider=self.identity.provider,
            end_id=self._end_id,
            max_model_len=config.longest_asked,
            epoch=remote.epoch,
            bos_id=self.files.leading_bos,
        )
        teacher = OpenAiTeacher(
            settings,
            model,
            remote_tokens(self.files),
            k=max(self._teacher.top_k, TRIED_K),
            purse=Purse(prices, budget=limit, spent=till.spent, pay=till.pay),
        )
        try:
            self._require_able(teacher.abilities)
            self._require_unchanged(teacher.fingerprint)
        except BaseException:
            teacher.close()
            raise
        return teacher, f"{self.label} {teacher.abilities.told()}"

    @property
    def _teacher(self) -> TeacherConfig:
        return self.config.every_teacher[self.name]

    @property
    def _server(self) -> OpenAiConfig:
        server = self._teacher.openai
        assert server is not None
        return server

    @property
    def _end_id(self) -> int:
        """What stands for the end of an answer of which the text alone is told."""
        stops, own = self.files.stop_ids, self.files.tokenizer.eos_token_id
        return own if own in stops else stops[0]

    @property
    def _key_of(self) -> str:
        return key_of_teacher(self.name)

    def _key(self) -> str | None:
        variable = self._server.key_env
        if variable is None:
            return None
        key = os.environ.get(variable)
        if not key:
            raise ConfigError(
                f"{self._key_of}.openai.key_env={variable} is not set in the environment: put the key for {self.host} "
                "into it"
            )
        return key

    def _require_able(self, abilities: Abilities) -> None:
        """Refuse a server that gives less than the experiment needs, with both sides in one line."""
        top_k, scored = f"{self._key_of}.top_k", scores_wanted(self.config, self.name)
        if self._teacher.top_k and not abilities.kept_k:
            raise ConfigError(
                f"{top_k}={self._teacher.top_k}, and {self.label} gives no log-probabilities that whole answers come "
                f"with: set {top_k} to 0, and learn its texts alone (objective: seqkd)"
            )
        if self._teacher.top_k > abilities.kept_k:
            raise ConfigError(
                f"{top_k}={self._teacher.top_k} is more than the {abilities.kept_k} that {self.label} gives: lower it"
            )
        if abilities.chat and self.config.data.template == "chat":
            raise ConfigError(
                f"data.template=chat renders conversations here, and {self.label} takes nothing but conversations, "
                "which it renders itself: set data.template to raw"
            )
        if scored is not None and abilities.scoring == "none":
            raise ConfigError(
                f"{scored} has the teacher read given texts, and {self.label} cannot ({NO_SCORES}): learn its own "
                "answers (source: teacher), or ask another server"
            )

    def _require_unchanged(self, now: Fingerprint) -> None:
        """Hold what it says of fixed texts against what it said first; that is noted where nobody asked it before."""
        storage = open_directory(self.config.runtime.cache_root, self.identity, create=True)
        try:
            first = Fingerprint.parse(kept_fingerprint(storage, now.fields()))
        except (KeyError, TypeError, ValueError) as error:
            raise CacheError(
                f"{storage.place}: what the teacher said first is not readable: raise {self._key_of}.openai.epoch to "
                "begin anew"
            ) from error
        changed = first.difference(now)
        if changed is not None:
            raise DoorError(
                f"{self.label} is not the model any more whose rows are in {storage.place} ({changed}): have the "
                f"server give the former one again, or raise {self._key_of}.openai.epoch (or name its new revision) to "
                "keep apart what it says from now on"
            )


def scores_wanted(config: DistillConfig, name: str) -> str | None:
    """The first thing of an experiment for which the teacher of this name reads texts of others; None without any."""
    if name != FIRST and config.route is None:
        return "combine.kind=mixture"
    return next(_scored_by(config), None)


def _scored_by(config: DistillConfig) -> Iterator[str]:
    for name, student in config.students.items():
        for number, stage in enumerate(student.stages if student.teacher is None else ()):
            if stage.rollout is not None and stage.rollout.replay_from is None:
                yield f"students.{name}.stages.{number}.rollout"
            if stage.needs_cached and stage.source != "teacher":
                yield f"students.{name}.stages.{number}.source={stage.source}"


def remote_tokens(files: ModelFiles) -> RemoteTokens:
    """How the answers of a server are read by the tokenizer of a model; it is used by one thread at a time.

    Raises:
        ModelError: which bytes its tokens stand for cannot be told.
    """
    spelling, tokenizer, lock = spelling_of(files), files.tokenizer, threading.Lock()

    def encode(text: str) -> list[int]:
        with lock:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
            return ids

    names = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if spelling.tokens[number] is None
    }
    return RemoteTokens(spelling.tokens, names, encode=encode, blank_first=spelling.blank_first)
