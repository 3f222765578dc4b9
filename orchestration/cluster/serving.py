"""The door under Ray Serve: engines that start, end and are replaced by themselves, and one door before all of them.

Each engine is a replica of a deployment of its teacher (`EngineReplica`), checked against a plain forward pass before
it is asked anything; Serve starts another one where it dies, and as many as the load takes. The door (`Door`) is one
replica: equal requests meet in it and are asked once. It writes to the cache, engines do not.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application as Application
from ray.serve._private import api
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle
from transformers import PreTrainedTokenizerBase

from cache import TeacherCache
from cache.answers import Request
from cache.protocols import Failure
from cache.records import TeacherRecord
from configs import EngineError, ModelError, configure_logging
from configs.screening import ContentConfig, PrivacyConfig
from configs.serving import LOOPBACK_NAMES, ServeConfig
from configs.visible_text import first_line
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.reference import kept_reference
from orchestration.cluster.serving_front import front_environment
from orchestration.cluster.serving_rules import ScreenRules
from orchestration.cluster.serving_signals import TEXTS_AT_ONCE, ServedHead, SignalReplica, served_signals
from orchestration.inputs.models import load_tokenizer
from orchestration.inputs.spelling import Spelling, read_spelling
from orchestration.outputs.redirect import redirect_output
from teacher_server.environment import engine_environment
from teacher_server.http.app import build_app
from teacher_server.http.door import every_desk
from teacher_server.http.exchange import ACCESS_LOG
from teacher_server.http.guard import Guard, TokenStore
from teacher_server.http.quotas import Quotas
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk
from teacher_server.http.served import DoorLimits, Served, TeacherFacts
from teacher_server.http.signals.labels import LabelDesk, LabelReader, LabelTexts
from teacher_server.http.signals.served import ServedSignals, SignalFacts
from teacher_server.http.stepping import SteppedEngine
from teacher_server.http.texts import Texts
from teacher_server.reference import NoReferenceError
from teacher_server.startup_check import ask_engine, judge_engine, reference_dtype

APPLICATION = "stillroom"
HEALTH_PERIOD_S = 5.0
HEALTH_TIMEOUT_S = 60.0
"""An engine's step may hold its process for long."""

LISTENING_S = 180.0
"""How long whoever listens may take to come up; on busy cores one process takes a minute to start."""

ACCESSES = "access.jsonl"
"""Below the logs: a line for each request."""

_QUIET = {"enable_access_log": False}
"""Serve's own access log has paths and queries."""

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


@dataclass(frozen=True, slots=True)
class ServedWords:
    """A language model that the door serves as a teacher of signals: how it is asked, and what is told of it."""

    model: ServedTeacher
    reader: LabelReader
    facts: SignalFacts

    @property
    def spec(self) -> EngineSpec:
        """Its engines."""
        return self.model.spec


Behind = ServedTeacher | ServedHead | ServedWords
"""Whom a door serves: a language model, a model with a task head, a language model that knows labels by their words."""


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


@serve.ingress()
class Door:
    """The door: desks over the caches of its teachers, and the app before them."""

    def __init__(
        self,
        teachers: Mapping[str, Behind],
        settings: ServeConfig,
        tokens: Path,
        log_dir: Path,
        engines: Mapping[str, DeploymentHandle],
    ) -> None:
        redirect_output(log_dir / "door.log")
        configure_logging(log_dir / "door.log")
        _write_accesses(log_dir / ACCESSES)
        self._settings, self._tokens = settings, tokens
        self._served = {
            name: _served(each, HandleAsking(engines[name]))
            for name, each in teachers.items()
            if isinstance(each, ServedTeacher)
        }
        self._signals = {
            name: _served_words(each, HandleAsking(engines[name]))
            if isinstance(each, ServedWords)
            else served_signals(each, engines[name])
            for name, each in teachers.items()
            if not isinstance(each, ServedTeacher)
        }

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor."""
        settings = self._settings
        return build_app(
            self._served,
            signals=self._signals,
            guard=Guard(TokenStore(self._tokens), hosts={settings.host, *settings.hosts, *LOOPBACK_NAMES}),
            quotas=Quotas(requests_a_minute=settings.requests_a_minute, tokens_a_minute=settings.tokens_a_minute),
            limits=DoorLimits(
                most_rows=settings.most_rows,
                most_tokens=settings.most_tokens,
                most_body_bytes=settings.most_body_bytes,
                request_s=settings.request_s,
                body_s=settings.body_s,
            ),
            why_not_ready=self._why_not_ready,
        )

    async def drain(self) -> None:
        """Let nobody in any more, answer who is inside, and write what was answered."""
        await self.app.state.door.drain()  # type: ignore[attr-defined]

    def _why_not_ready(self) -> str | None:
        for name, desk in every_desk(self._served, self._signals).items():
            if desk.writing_fails:
                return f"what {name} answers cannot be written"
        return None


def _served_words(words: ServedWords, asking: HandleAsking) -> ServedSignals:
    desk = LabelDesk(_sequences(words.model, asking), words.reader, identity=words.facts.identity.digest())
    return ServedSignals(desk, words.facts, LabelTexts(words.reader))


def _sequences(teacher: ServedTeacher, asking: HandleAsking) -> SequenceDesk:
    cache = TeacherCache.open(teacher.cache_root, teacher.spec.identity, provenance=teacher.terms.provenance)
    return SequenceDesk(cache, asking, teacher.terms)


def _served(teacher: ServedTeacher, asking: HandleAsking) -> Served:
    tokenizer = load_tokenizer(teacher.spec.model_dir, label=teacher.facts.label)
    texts = Texts(
        tokenizer,
        stop_ids=teacher.facts.stop_ids,
        template_variables=teacher.template_variables,
        spelling=_spelling(tokenizer, label=teacher.facts.label),
    )
    screened = teacher.privacy is not None or teacher.content is not None
    rules = ScreenRules(teacher.privacy, teacher.content, text=texts.text) if screened else None
    return Served(_sequences(teacher, asking), teacher.facts, texts, rules)


def _spelling(tokenizer: PreTrainedTokenizerBase, *, label: str) -> Spelling | None:
    """The bytes of the tokens; None where the vocabulary does not say them: each is decoded by itself then."""
    try:
        return read_spelling(tokenizer, label=label)
    except ModelError as error:
        logger.warning("tokens that are part of a character are told as U+FFFD: %s", error)
        return None


def _write_accesses(path: Path) -> None:
    """A line of JSON for each request into a file of their own, which others may rotate."""
    handler = WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    accesses = logging.getLogger(ACCESS_LOG)
    accesses.addHandler(handler)
    accesses.setLevel(logging.INFO)
    accesses.propagate = False


def open_door(
    teachers: Mapping[str, Behind], settings: ServeConfig, *, tokens: Path, log_dir: Path
) -> DeploymentHandle:
    """Start engines and door on the cluster that is attached; returns when they can be asked.

    Raises:
        EngineError: an engine does not come up, does not say what its weights say, or the port is taken.
    """
    # What Serve says of its own work is in its logs; people are told what they can act upon.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        with _patience():
            serve.start(
                http_options=_http(settings),
                logging_config=_QUIET,
                # Whoever listens is started by Serve's controller and inherits its environment.
                controller_options={"runtime_env": {"env_vars": front_environment(settings)}},
            )
        return serve.run(
            door_application(teachers, settings, tokens=tokens, log_dir=log_dir), name=APPLICATION, route_prefix="/"
        )
    except (RuntimeError, RayError, TimeoutError) as error:
        raise EngineError(f"the door cannot be opened ({_why(error)}); its logs are in {log_dir}") from error


@contextmanager
def _patience() -> Iterator[None]:
    """Within, `serve.start` waits longer for whoever listens: it has no setting for this.

    A release that waits in another way waits as long as it always does.
    """
    before = getattr(api, "HTTP_PROXY_TIMEOUT", None)
    api.HTTP_PROXY_TIMEOUT = LISTENING_S
    try:
        yield
    finally:
        api.HTTP_PROXY_TIMEOUT = before


def door_application(
    teachers: Mapping[str, Behind], settings: ServeConfig, *, tokens: Path, log_dir: Path
) -> Application:
    """Engines and the door before them, to be run by whoever runs Serve; where it listens is Serve's to say."""
    door = serve.deployment(name="door", num_replicas=1, max_ongoing_requests=4096, ray_actor_options={"num_cpus": 0})(
        Door
    )
    engines = {name: _engines(name, teacher, settings) for name, teacher in teachers.items()}
    return door.bind(dict(teachers), settings, tokens, log_dir, engines)


def close_door(door: DeploymentHandle, *, at_most_s: float) -> None:
    """Answer who is inside and write what was answered, then end door and engines."""
    try:
        door.drain.remote().result(timeout_s=at_most_s)
    except (RayError, TimeoutError) as error:
        logger.warning("the door was closed before all were answered: %s", first_line(error))
    finally:
        serve.shutdown()


def _engines(name: str, teacher: Behind, settings: ServeConfig) -> Application:
    """Engines of a teacher; of one with a head each is on one GPU at most."""
    spec, has_head = teacher.spec, isinstance(teacher, ServedHead)
    many = TEXTS_AT_ONCE if has_head else 2 * spec.settings.max_sequences
    least = settings.least_engines or spec.settings.count
    most = max(settings.most_engines or least, least)
    gpus = spec.settings.ranks if spec.accelerator == "gpu" else 0
    scale: dict[str, Any] = {"num_replicas": least}
    if most > least:
        target = many // 2
        scale = {"autoscaling_config": {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": target}}
    deployment = serve.deployment(
        name=f"engine-{name}",
        logging_config=_QUIET,
        # More wait in the door, where they are counted.
        max_ongoing_requests=many,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        ray_actor_options={
            "num_cpus": gpus or spec.settings.cpus * spec.settings.ranks,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": engine_environment(spec.settings, spec.accelerator)},
        },
        **scale,
    )(SignalReplica if has_head else EngineReplica)
    # Of what is said in words an engine need not know.
    bound = teacher.model if isinstance(teacher, ServedWords) else teacher
    return deployment.bind(_named(bound, f"engine-{name}"))


def _named(teacher: ServedTeacher | ServedHead, name: str) -> ServedTeacher | ServedHead:
    if isinstance(teacher, ServedHead):
        return replace(teacher, spec=replace(teacher.spec, name=name))
    return replace(teacher, spec=replace(teacher.spec, name=name))


def _http(settings: ServeConfig) -> HTTPOptions:
    tls = (
        {}
        if settings.certificate is None or settings.private_key is None
        else {"ssl_certfile": str(settings.certificate), "ssl_keyfile": str(settings.private_key)}
    )
    # The door has a time limit of its own, and says so in its own words.
    return HTTPOptions(
        host=settings.host,
        port=settings.port,
        request_timeout_s=None,
        keep_alive_timeout_s=settings.idle_s,
        **tls,
    )


def _why(error: BaseException) -> str:
    """The line that says it, out of Serve's pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line]
    return (telling or lines or [type(error).__name__])[-1]
