"""A vLLM engine that lives in the process that owns it.

The only module that imports vLLM. The synchronous engine is stepped from here: no server, no port beyond the
loopback, no engine process (docs/decisions/0003-one-engine-in-process.md). The process must have been started with
`teacher_server.engine_environment`, and nothing else should live in it: vLLM seeds its generators and turns
`torch.set_num_threads` into a no-op.
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
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
from teacher_server.environment import Accelerator, require_environment
from teacher_server.flat_logprobs import make_record, topk_rows
from teacher_server.requests import refusal, sampling_arguments
from teacher_server.weights import require_same_shape, require_weights

SPARE_IDS = 32
"""Log-probabilities asked for beyond k when the model's matrix has more rows than the tokenizer has ids.

Those rows were never trained to be likely, so a handful among the best is already rare; a row with more than this
many becomes a `Failure` instead of a short or wrong row.
"""

CPU_BLOCK_TOKENS = 32
"""KV block of the CPU engine; its default of 128 makes prefix caching useless for prompts of usual length."""

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
        vocab: V, the length of the tokenizer. Ids beyond it are folded into the tail (see `SPARE_IDS`).
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
        if (identity.dtype, identity.quantization) != (dtype, quantization):
            raise EngineError(
                f"dtype={dtype} quantization={quantization} contradict the identity's dtype={identity.dtype} "
                f"quantization={identity.quantization}"
            )
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
        arguments = _engine_arguments(model_dir, identity=identity, settings=settings, seed=seed, accelerator=accelerator)
        try:
            config = arguments.create_engine_config()
            self._engine: LLMEngine | None = LLMEngine(
                config, Executor.get_class(config), log_stats=False, multiprocess_mode=False
            )
        except _FAULTS as error:
            raise EngineError(f"{model_dir}: the engine did not start: {_first_line(error)}") from error
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
        asked = self._asked(k)

        def params(request: GenerateRequest) -> SamplingParams:
            seed = engine_seed(generation_key(self._digest, request))
            return _sampling_params(
                **sampling_arguments(request, seed=seed), logprobs=asked if k else None, prompt_logprobs=None
            )

        return self._drive(
            requests,
            prompt=lambda request: request.prompt_ids,
            params=params,
            record=lambda request, output: self._generated(request, output, k=k),
        )

    def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Iterator[Outcome]:
        """Teacher-forced rows of the response tokens of given sequences; see `SequenceSource.score`.

        Raises:
            EngineError: the engine died or is closed, serves another call, or `k` is 0 or beyond `max_logprobs`.
        """
        self._require_k(k, least=1)
        asked = self._asked(k)
        return self._drive(
            requests,
            prompt=lambda request: request.token_ids,
            params=lambda _request: _sampling_params(
                temperature=0.0, max_tokens=1, logprobs=None, prompt_logprobs=asked
            ),
            record=lambda request, output: self._scored(request, output, k=k),
        )

    def load(self, model_dir: Path, *, identity: TeacherIdentity) -> None:
        """Replace the weights by those of another model of the same shape.

        Raises:
            ModelError: the shapes differ; the engine goes on with the old weights.
            EngineError: the update failed; the engine holds a mixture and refuses everything from then on.
        """
        engine = self._ready()
        require_same_shape(self._model_dir, model_dir)
        if (identity.dtype, identity.quantization) != (self.identity.dtype, self.identity.quantization):
            raise EngineError(f"an engine of dtype={self.identity.dtype} cannot become one of dtype={identity.dtype}")
        try:
            engine.collective_rpc("reload_weights", kwargs={"weights_path": str(model_dir)})
            cleared = engine.reset_prefix_cache()
        except _FAULTS as error:
            raise self._died(error) from error
        if not cleared:
            raise self._died(RuntimeError("the prefix cache could not be cleared after a change of weights"))
        self.identity, self._digest, self._model_dir = identity, identity.digest(), model_dir

    def close(self) -> None:
        """End every process and socket of the engine and give its memory back. Closing twice does nothing."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        self._broken = self._broken or "it was closed"
        try:
            engine.engine_core.shutdown()
            del engine
            cleanup_dist_env_and_memory()
        except _FAULTS as error:
            _log.warning("the engine did not shut down cleanly: %s", _first_line(error))
        gc.collect()

    def _ready(self) -> LLMEngine:
        if self._engine is None or self._broken is not None:
            raise EngineError(f"the engine cannot be used: {self._broken}")
        if self._busy:
            raise EngineError("the engine serves another call: finish or close its iterator first")
        return self._engine

    def _died(self, error: BaseException) -> EngineError:
        self._broken = f"it died of {type(error).__name__}: {_first_line(error)}"
        return EngineError(f"the engine cannot be used: {self._broken}")

    def _require_k(self, k: int, *, least: int) -> None:
        if not least <= k <= self._max_logprobs:
            raise EngineError(f"k={k} is outside {least}..{self._max_logprobs}, what this engine can return")

    def _asked(self, k: int) -> int:
        """Log-probabilities to ask for so that `k` of ids that the tokenizer knows are among them."""
        beyond = self._matrix_rows - self._vocab
        return k + (beyond if k + SPARE_IDS >= self._vocab else min(beyond, SPARE_IDS))

    def _drive(
        self,
        requests: Iterable[_Request],
        *,
        prompt: Callable[[_Request], tuple[int, ...]],
        params: Callable[[_Request], SamplingParams],
        record: Callable[[_Request, RequestOutput], TeacherRecord | Failure],
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
                    reason = reason or self._submit(name, prompt=prompt(drawn[1]), params=params(drawn[1]))
                    if reason is not None:
                        yield drawn[0], Failure(reason)
                    else:
                        flying[name] = drawn
                if not flying:
                    return
                for output in self._step():
                    position, request = flying.pop(output.request_id)
                    yield position, record(request, output)
        finally:
            self._busy = False
            if flying and self._broken is None:
                engine.abort_request(list(flying))

    def _submit(self, name: str, *, prompt: tuple[int, ...], params: SamplingParams) -> str | None:
        assert self._engine is not None
        try:
            self._engine.add_request(name, tokens_input(list(prompt)), params)
        except ValueError as error:
            # The engine checks a request before it takes it in; nothing of it is left behind.
            return _first_line(error)
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

    def _generated(self, request: GenerateRequest, output: RequestOutput, *, k: int) -> TeacherRecord | Failure:
        answer = output.outputs[0]
        if answer.finish_reason not in ("stop", "length"):
            return Failure(f"the engine ended the request with {answer.finish_reason}")
        response = list(answer.token_ids)
        if max(response) >= self._vocab:
            return Failure(f"the model wrote token id {max(response)}, beyond the tokenizer's {self._vocab}")
        rows = None
        if k:
            targets = np.array(response, dtype=np.int32)
            rows = topk_rows(answer.logprobs, targets=targets, k=k, vocab=self._vocab)
            if rows is None:
                return Failure(_too_few(k, vocab=self._vocab))
        return make_record(
            rows,
            identity_digest=self._digest,
            token_ids=[*request.prompt_ids, *response],
            prompt_len=len(request.prompt_ids),
            finish="stop" if answer.finish_reason == "stop" else "length",
            origin="decode",
            vocab=self._vocab,
        )

    def _scored(self, request: ScoreRequest, output: RequestOutput, *, k: int) -> TeacherRecord | Failure:
        if output.prompt_logprobs is None:
            return Failure(f"the engine ended the request with {output.outputs[0].finish_reason}")
        targets = np.array(request.token_ids[request.prompt_len :], dtype=np.int32)
        rows = topk_rows(output.prompt_logprobs, targets=targets, k=k, vocab=self._vocab, first=request.prompt_len)
        if rows is None:
            return Failure(_too_few(k, vocab=self._vocab))
        return make_record(
            rows,
            identity_digest=self._digest,
            token_ids=request.token_ids,
            prompt_len=request.prompt_len,
            finish="given",
            origin="prefill",
            vocab=self._vocab,
        )


def _engine_arguments(
    model_dir: Path, *, identity: TeacherIdentity, settings: EngineSettings, seed: int, accelerator: Accelerator
) -> EngineArgs:
    """What differs on a CPU: no compilation (52 s of start for 3 % of speed) and no chunked prefill.

    A sampled request crashes the CPU engine when its prompt is split over steps, so a step must hold any prompt.
    """
    on_cpu = accelerator == "cpu"
    batched = max(settings.max_batched_tokens, settings.max_model_len if on_cpu else 1)
    return EngineArgs(
        model=str(model_dir),
        skip_tokenizer_init=True,
        trust_remote_code=False,
        load_format="safetensors",
        use_tqdm_on_load=False,
        dtype=identity.dtype,
        quantization=identity.quantization,
        kv_cache_dtype=identity.kv_cache_dtype,
        hf_overrides=json.loads(identity.hf_overrides) if identity.hf_overrides else {},
        seed=seed,
        max_model_len=settings.max_model_len,
        max_num_batched_tokens=batched,
        max_num_seqs=settings.max_sequences,
        kv_cache_memory_bytes=int(settings.kv_cache_gib * 2**30),
        block_size=CPU_BLOCK_TOKENS if on_cpu else None,
        enable_prefix_caching=True,
        enable_chunked_prefill=not on_cpu,
        enforce_eager=on_cpu,
        tensor_parallel_size=settings.tensor_parallel,
        # Named, because inside a Ray actor vLLM would otherwise start workers through Ray.
        distributed_executor_backend="mp" if settings.tensor_parallel > 1 else "uni",
        generation_config="vllm",
        logprobs_mode=identity.logprobs_mode,
        max_logprobs=-1,
        disable_log_stats=True,
    )


def _sampling_params(**arguments: Any) -> SamplingParams:
    """Sampling settings plus what every request has: token ids only, flat rows, one output, no stops but its own."""
    return SamplingParams(
        **arguments,
        flat_logprobs=True,
        detokenize=False,
        ignore_eos=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _too_few(k: int, *, vocab: int) -> str:
    return f"fewer than k={k} of the model's most likely ids are below the tokenizer's {vocab}: lower k"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
