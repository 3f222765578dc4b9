"""Which version of an engine a teacher is asked with, and what it is not asked: it cannot answer, or it was forgotten.

The cache keeps what could not be answered with that version (`cache.failures`): vLLM's release, how long a sequence may
be, how many log-probabilities are asked, and how the engine's memory is laid out. How many engines there are, and on
how many CPUs, changes no answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from cache.disk.roots import open_storage
from cache.erasures import AnyRequest, Erasures
from cache.failures import EngineVersion, Failures
from cache.identity import Identity, TeacherIdentity
from configs.runtime import RuntimeConfig
from configs.task_experiment import TaskDistillConfig
from orchestration.environment import VLLM, installed_version
from orchestration.inputs.doors import Door


@dataclass(frozen=True, slots=True)
class Refusals:
    """What a teacher is not asked: what was forgotten of anybody, and what it could not answer itself."""

    erasures: Erasures
    failures: Failures

    def reason(self, request: AnyRequest) -> str | None:
        """Why it is not asked this; None where it is."""
        return self.erasures.reason(request) or self.failures.reason(request)


def engine_version(runtime: RuntimeConfig, *, k: int, door: Door | None = None) -> EngineVersion:
    """The version of a vLLM engine, or of what answers behind a `door`, that is asked for `k` log-probabilities."""
    if door is not None and door.version is not None:
        return door.version
    settings = runtime.teacher_engine
    return {
        "vllm": installed_version(*VLLM),
        "top_k": k,
        "max_model_len": settings.max_model_len,
        "max_batched_tokens": settings.max_batched_tokens,
        "max_sequences": settings.max_sequences,
        "kv_cache_gib": settings.kv_cache_gib,
        "tensor_parallel": settings.tensor_parallel,
        **({"pipeline_parallel": settings.pipeline_parallel} if settings.pipeline_parallel > 1 else {}),
    }


def signal_engine_version(config: TaskDistillConfig) -> EngineVersion:
    """The version of an engine of a teacher with a head: what it answers may also not be kept in an encoding."""
    return {"transformers": installed_version("transformers"), "encoding": config.teacher.encoding}


def open_refusals(runtime: RuntimeConfig, identity: Identity, *, k: int, door: Door | None = None) -> Refusals:
    """What a teacher that is asked for `k` log-probabilities is not asked.

    Raises:
        CacheError: what was forgotten cannot be read.
    """
    return _open(runtime, identity, engine_version(runtime, k=k, door=door))


def open_signal_refusals(config: TaskDistillConfig, identity: TeacherIdentity) -> Refusals:
    """What a teacher with a head is not asked: it could not answer in this form, or at all, or it was forgotten.

    Raises:
        CacheError: what was forgotten cannot be read.
    """
    return _open(config.runtime, identity, signal_engine_version(config))


def _open(runtime: RuntimeConfig, identity: Identity, engine: EngineVersion) -> Refusals:
    digest, root = identity.digest(), runtime.cache_root
    failures = Failures(open_storage(root, digest, create=False), identity=digest, engine=engine)
    return Refusals(Erasures.read(root), failures)
