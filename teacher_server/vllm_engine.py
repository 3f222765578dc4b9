"""A vLLM engine that lives in the process that owns it.

The only module that imports vLLM. The synchronous engine is stepped from here: no server, no port beyond the
loopback, no engine process (docs/decisions/0003-one-engine-in-process.md). The process must have been started with
`teacher_server.engine_environment`, and nothing else should live in it: vLLM seeds its generators and turns
`torch.set_num_threads` into a no-op.
"""

from __future__ import annotations

import gc
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar

import vllm
from vllm import SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.executor import Executor

from cache.identity import TeacherIdentity
from cache.keys import engine_seed, generation_key
from cache.protocols import Failure, Outcome
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs.errors import EngineError
from configs.schema import EngineSettings
from teacher_server.answers import generated, scored
from teacher_server.engine_arguments import engine_arguments, require_declared, require_same_numerics
from teacher_server.environment import Accelerator, require_environment
from teacher_server.flat_logprobs import wanted_ids
from teacher_server.requests import GenerateArguments, ScoreArguments, generate_arguments, refusal, score_arguments
from teacher_server.shared_memory import remove_files, shared_by_children
from teacher_server.weights import require_same_shape, require_weights

_FAULTS = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, OSError, MemoryError,
    EngineDeadError,
)  # fmt: skip
"""Anything that the engine's own code may die of; it all becomes one `EngineError`."""

_log = logging.getLogger(__name__)

_Request = TypeVar("_Request", GenerateRequest, ScoreRequest)


class VllmEngine:
    """One engine: writes and scores sequences with the model of a local directory (a `SequenceSource`).

    Args:
        model_dir: A directory with config.json and *.safetensors.
        identity: Stamped on the records. Its dtype and quantization must equal the arguments below.
        vocab: V, the length of the tokenizer. Ids beyond it are folded into the tail (see `flat_logprobs.SPARE_IDS`).
        dtype: Of weights and activations: float32, bfloat16 or float16.
        settings: Size of the engine; at most `max_sequences` requests are in flight.
        seed: Of this engine's own noise; give every engine another one. Sampled requests have their own seeds.
        max_logprobs: The largest k that will be asked for.
        quantization: Name of a vLLM quantization method, or None.

    Raises:
        EngineError: the process was not prepared for an engine, or the engine did not start.
        ModelError: the directory holds no model that can be served.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        identity: TeacherIdentity,
        vocab: int,
        dtype: str,
        settings: EngineSettings,
        seed: int,
        max_logprobs: int,
        quantization: str | None = None,
    ) -> None:
        accelerator: Accelerator = "cpu" if current_platform.is_cpu() else "gpu"
        require_environment(settings, accelerator)
        require_weights(model_dir)
        require_declared(identity, dtype=dtype, quantization=quantization)
        self.identity = identity
        self._digest = identity.digest()
        self._model_dir = model_dir
        self._vocab = vocab
        self._settings = settings
        self._max_logprobs = min(max_logprobs, vocab)
        self._broken: str | None = None
        self._busy = False
        self._ids = itertools.count()
        started = time.monotonic()
        arguments = engine_arguments(
            model_dir, identity=identity, settings=settings, seed=seed, accelerator=accelerator
        )
        try:
            config = EngineArgs(**arguments).create_engine_config()
            self._engine: LLMEngine | None = LLMEngine(
                config, Executor.get_class(config), log_stats=False, multiprocess_mode=False
            )
        except _FAULTS as error:
            raise EngineError(f"{model_dir}: the engine did not start: {_one_line(error)}") from error
        self._start_seconds = time.monotonic() - started
        self._max_model_len = int(config.model_config.max_model_len)
        self._matrix_rows = int(config.model_config.get_vocab_size())
        if vocab > self._matrix_rows:
            self.close()
            raise EngineError(f"{model_dir}: the tokenizer has {vocab} ids, the model only {self._matrix_rows}")
        _log.info("engine up in %.1f s: %s", self._start_seconds, self.describe())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest sequence, prompt and answer together."""
        return self._max_model_len

    @property
    def model_dir(self) -> Path:
        """The directory whose weights are loaded."""
        return self._model_dir

    def describe(self) -> dict[str, str | int | float]:
        """What a log or a manifest wants to know about this engine."""
        return {
            "engine": f"vllm {vllm.__version__}",
            "device": current_platform.device_name,
            "model_dir": str(self._model_dir),
            "identity": self._digest,
            "max_model_len": self._max_model_len,
            "tensor_parallel": self._settings.tensor_parallel,
            "start_seconds": round(self._start_seconds, 1),
        }

    def generate(self, requests: Iterable[GenerateRequest], *, k: int) -> Iterator[Outcome]:
        """Write one completion a request; see `SequenceSource.generate`.

        The response includes its stop token. A request has the noise of its own generation key.

        Raises:
            EngineError: the engine died or is closed, serves another call, or `k` is beyond `max_logprobs`.
        """
        self._require_k(k, least=0)
        asked = wanted_ids(k, vocab=self._vocab, matrix_rows=self._matrix_rows)
        return self._drive(
            requests,
            prompt=lambda request: request.prompt_ids,
            arguments=lambda request: generate_arguments(
                request, seed=engine_seed(generation_key(self._digest, request)), logprobs=asked
            ),
            answer=lambda request, output: generated(
                request,
                response=list(output.outputs[0].token_ids),
                finish_reason=output.outputs[0].finish_reason,
                flat=output.outputs[0].logprobs,
                identity_digest=self._digest,
                k=k,
                vocab=self._vocab,
            ),
        )

    def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Iterator[Outcome]:
        """Teacher-forced rows of the response tokens of given sequences; see `SequenceSource.score`.

        Raises:
            EngineError: the engine died or is closed, serves another call, or `k` is 0 or beyond `max_logprobs`.
        """
        self._require_k(k, least=1)
        asked = wanted_ids(k, vocab=self._vocab, matrix_rows=self._matrix_rows)
        arguments = score_arguments(logprobs=asked)
        return self._drive(
            requests,
            prompt=lambda request: request.token_ids,
            arguments=lambda _request: arguments,
            answer=lambda request, output: scored(
                request, flat=output.prompt_logprobs, identity_digest=self._digest, k=k, vocab=self._vocab
            ),
        )

    def load(self, model_dir: Path, *, identity: TeacherIdentity) -> None:
        """Replace the weights by those of another model of the same shape.

        Raises:
            ModelError: the shapes differ; the engine goes on with the old weights.
            EngineError: the update failed; the engine holds a mixture and refuses everything from then on.
        """
        engine = self._ready()
        require_same_shape(self._model_dir, model_dir)
        require_same_numerics(self.identity, identity)
        try:
            engine.collective_rpc("reload_weights", kwargs={"weights_path": str(model_dir)})
            cleared = engine.reset_prefix_cache()
        except _FAULTS as error:
            raise self._died(error) from error
        if not cleared:
            raise self._died(RuntimeError("its prefix cache could not be cleared after a change of weights"))
        self.identity, self._digest, self._model_dir = identity, identity.digest(), model_dir

    def close(self) -> None:
        """End every process and socket of the engine and give its memory back. Closing twice does nothing."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        self._broken = self._broken or "it was closed"
        shared = shared_by_children()
        try:
            engine.engine_core.shutdown()
            del engine
            cleanup_dist_env_and_memory()
        except _FAULTS as error:
            _log.warning("the engine did not shut down cleanly: %s", _one_line(error))
        remove_files(shared)
        gc.collect()

    def _ready(self) -> LLMEngine:
        if self._engine is None or self._broken is not None:
            raise EngineError(f"the engine cannot be used: {self._broken}")
        if self._busy:
            raise EngineError("the engine serves another call: finish or close its iterator first")
        return self._engine

    def _died(self, error: BaseException) -> EngineError:
        self._broken = f"it died of {type(error).__name__}: {_one_line(error)}"
        return EngineError(f"the engine cannot be used: {self._broken}")

    def _require_k(self, k: int, *, least: int) -> None:
        if not least <= k <= self._max_logprobs:
            raise EngineError(f"k={k} is outside {least}..{self._max_logprobs}, what this engine can return")

    def _drive(
        self,
        requests: Iterable[_Request],
        *,
        prompt: Callable[[_Request], tuple[int, ...]],
        arguments: Callable[[_Request], GenerateArguments | ScoreArguments],
        answer: Callable[[_Request, RequestOutput], TeacherRecord | Failure],
    ) -> Iterator[Outcome]:
        """Keep the engine full from `requests` and yield what it finishes."""
        engine = self._ready()
        self._busy = True
        source = enumerate(requests)
        flying: dict[str, tuple[int, _Request]] = {}
        try:
            while True:
                while len(flying) < self._settings.max_sequences and (drawn := next(source, None)) is not None:
                    reason = refusal(drawn[1], vocab=self._vocab, max_model_len=self._max_model_len)
                    name = str(next(self._ids))
                    reason = reason or self._submit(name, prompt=prompt(drawn[1]), arguments=arguments(drawn[1]))
                    if reason is not None:
                        yield drawn[0], Failure(reason)
                    else:
                        flying[name] = drawn
                if not flying:
                    return
                for output in self._step():
                    position, request = flying.pop(output.request_id)
                    yield position, answer(request, output)
        finally:
            self._busy = False
            if flying and self._broken is None:
                engine.abort_request(list(flying))

    def _submit(
        self, name: str, *, prompt: tuple[int, ...], arguments: GenerateArguments | ScoreArguments
    ) -> str | None:
        """Hand one request to the engine; the reason when it refuses it."""
        assert self._engine is not None
        try:
            params = SamplingParams(**arguments, output_kind=RequestOutputKind.FINAL_ONLY)
            self._engine.add_request(name, tokens_input(list(prompt)), params)
        except ValueError as error:
            # The engine checks a request before it takes it in; nothing of it is left behind.
            return _one_line(error)
        except _FAULTS as error:
            raise self._died(error) from error
        return None

    def _step(self) -> list[RequestOutput]:
        if self._engine is None:
            raise EngineError(f"the engine cannot be used: {self._broken}")
        try:
            outputs = self._engine.step()
        except _FAULTS as error:
            raise self._died(error) from error
        return [output for output in outputs if output.finished]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
