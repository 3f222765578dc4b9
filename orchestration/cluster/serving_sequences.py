"""A language model behind the door: its engines as replicas of Ray Serve, and the desk over its cache.

Each engine is compared with a plain forward pass before it is asked anything.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle
from transformers import PreTrainedTokenizerBase

from cache import TeacherCache
from cache.answers import Request
from cache.protocols import Failure
from cache.records import TeacherRecord
from configs import EngineError, ModelError
from configs.screening import ContentConfig, PrivacyConfig
from configs.visible_text import first_line
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.reference import kept_reference
from orchestration.cluster.serving_rules import ScreenRules
from orchestration.inputs.models import load_tokenizer
from orchestration.inputs.spelling import Spelling, read_spelling
from orchestration.outputs.redirect import redirect_output
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk
from teacher_server.http.served import Served, TeacherFacts
from teacher_server.http.stepping import SteppedEngine
from teacher_server.http.texts import Texts
from teacher_server.reference import NoReferenceError
from teacher_server.startup_check import ask_engine, judge_engine, reference_dtype

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedTeacher:
    """A teacher that the door serves: how its engines start and are checked, and what is kept of what it says.

    `check_prompts` are token ids that each engine is compared on; `references` is where the forward passes of this
    teacher are kept. What `privacy` and `content` would not ask or learn is refused.
    """

    spec: EngineSpec
    cache_root: Path | str
    terms: DeskTerms
    facts: TeacherFacts
    bos_id: int | None
    check_prompts: tuple[tuple[int, ...], ...]
    references: Path
    template_variables: Mapping[str, Any]
    privacy: PrivacyConfig | None = None
    content: ContentConfig | None = None


class EngineReplica:
    """One engine in one process, which answers many at once."""

    def __init__(self, teacher: ServedTeacher) -> None:
        spec, replica = teacher.spec, serve.get_replica_context().replica_id.unique_id
        redirect_output(spec.log_dir / f"{spec.name}-{replica}.log")
        from teacher_server.vllm_engine import VllmEngine

        self._engine = VllmEngine(
            spec.model_dir,
            identity=spec.identity,
            vocab=spec.vocab,
            settings=spec.settings,
            # Every engine draws noise of its own, also one that takes the place of another.
            seed=secrets.randbits(31),
            max_logprobs=spec.max_logprobs,
            grammars=spec.grammars,
        )
        self._check(teacher)
        self._stepped = SteppedEngine(self._engine)

    async def answer(self, request: Request, k: int) -> TeacherRecord | Failure:
        """See `SteppedEngine.answer`."""
        return await self._stepped.answer(request, k=k)

    def check_health(self) -> None:
        """Called by Serve, which replaces the engine where this raises.

        Raises:
            EngineError: the engine died.
        """
        if self._stepped.died is not None:
            raise self._stepped.died

    def __del__(self) -> None:
        # Serve lets what is under way end before.
        if hasattr(self, "_stepped"):
            self._stepped.close()
            self._engine.close()

    def _check(self, teacher: ServedTeacher) -> None:
        """Compare it with a plain forward pass, which is made once for all engines of the teacher.

        Raises:
            EngineError: it does not say what its weights say.
        """
        spec = teacher.spec
        answers = ask_engine(
            self._engine,
            prompts=teacher.check_prompts,
            stop_ids=teacher.facts.stop_ids,
            expected_bos=teacher.bos_id,
        )
        try:
            rows = kept_reference(
                answers.sequences,
                folder=teacher.references,
                model_dir=spec.model_dir,
                dtype=reference_dtype(spec.model_dir, served=spec.identity.dtype),
                log_dir=spec.log_dir,
                report=lambda done, layers: None,
            )
        except NoReferenceError as error:
            logger.warning("the engine was not compared with a plain forward pass: %s", error)
            return
        judge_engine(answers, rows, model_dir=spec.model_dir)


class HandleAsking:
    """The engines of one teacher as a desk sees them: whichever of them has room."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def answer(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        """See `Asking`."""
        try:
            answer: TeacherRecord | Failure = await self._handle.answer.remote(request, k)
        except EngineError:
            raise
        except RayError as error:
            raise EngineError(f"an engine is gone: {first_line(error)}") from error
        return answer


def served_sequences(teacher: ServedTeacher, handle: DeploymentHandle) -> Served:
    """The teacher as the door has it, over its cache."""
    tokenizer = load_tokenizer(teacher.spec.model_dir, label=teacher.facts.label)
    texts = Texts(
        tokenizer,
        stop_ids=teacher.facts.stop_ids,
        template_variables=teacher.template_variables,
        spelling=_spelling(tokenizer, label=teacher.facts.label),
    )
    screened = teacher.privacy is not None or teacher.content is not None
    rules = ScreenRules(teacher.privacy, teacher.content, text=texts.text) if screened else None
    return Served(sequence_desk(teacher, handle), teacher.facts, texts, rules)


def sequence_desk(teacher: ServedTeacher, handle: DeploymentHandle) -> SequenceDesk:
    """Whoever asks its engines, and keeps what they answer."""
    cache = TeacherCache.open(teacher.cache_root, teacher.spec.identity, provenance=teacher.terms.provenance)
    return SequenceDesk(cache, HandleAsking(handle), teacher.terms)


def _spelling(tokenizer: PreTrainedTokenizerBase, *, label: str) -> Spelling | None:
    """The bytes of the tokens; None where the vocabulary does not say them: each is decoded by itself then."""
    try:
        return read_spelling(tokenizer, label=label)
    except ModelError as error:
        logger.warning("tokens that are part of a character are told as U+FFFD: %s", error)
        return None
