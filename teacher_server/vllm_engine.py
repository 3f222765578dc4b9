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
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import vllm
from vllm import SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.executor import Executor

from cache.identity import TeacherIdentity
from cache.protocols import QUOTED, Failure, Outcome
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs.errors import EngineError
from configs.models import Device
from configs.schema import EngineSettings
from teacher_server.answers import answer
from teacher_server.condition import FAULTS, Condition, one_line
from teacher_server.engine_arguments import Purpose, engine_arguments, require_same_numerics
from teacher_server.engine_arrays import Reading, Trial, keep_arrays, keep_lists, unknown_version
from teacher_server.environment import require_environment
from teacher_server.grammar import Grammars
from teacher_server.occupancy import Occupancy, most_reserved_bytes, resident_bytes
from teacher_server.requests import Asked, prompt_and_arguments, refusal
from teacher_server.sessions import Sessions
from teacher_server.shared_memory import remove_files, shared_by_children
from teacher_server.stages import make_room_between_stages
from teacher_server.weights import (
    Shapes,
    WeightSource,
    repack,
    require_same_shape,
    require_shapes,
    require_weights,
    take_weights,
    weight_digests,
)

_FAULTS = (*FAULTS, EngineDeadError)

_log = logging.getLogger(__name__)

_END = object()
"""Drawn from requests that have come to an end."""


class VllmEngine:
    """One engine: writes and scores sequences with the model of a local directory (a `SequenceSource`).

    Args:
        model_dir: A directory with config.json and *.safetensors.
        identity: Stamped on the records; its dtype, quantization and so on are what the engine runs in.
        vocab: V, the length of the tokenizer. Ids beyond it are folded into the tail (see `flat_logprobs.SPARE_IDS`).
        settings: Size of the engine; at most `max_sequences` requests are in flight.
        seed: Of this engine's own noise; give every engine another one. Sampled requests have their own seeds.
        max_logprobs: The largest k that will be asked for.
        purpose: What the engine is laid out for (see `engine_arguments`).
        grammars: Whether answers will be held to grammars; else a request with one is refused.

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
        settings: EngineSettings,
        seed: int,
        max_logprobs: int,
        purpose: Purpose = "fill",
        grammars: bool = False,
    ) -> None:
        accelerator: Device = "cpu" if current_platform.is_cpu() else "gpu"
        require_environment(settings, accelerator)
        require_weights(model_dir)
        self.identity, self._digest, self._model_dir = identity, identity.digest(), model_dir
        self._vocab, self._settings = vocab, settings
        self._max_logprobs = min(max_logprobs, vocab)
        self._condition = Condition(_FAULTS)
        self._ids = itertools.count()
        self._reading: Reading = keep_lists
        started = time.monotonic()
        arguments = engine_arguments(
            model_dir,
            identity=identity,
            settings=settings,
            seed=seed,
            accelerator=accelerator,
            purpose=purpose,
            grammars=grammars,
        )
        try:
            config = EngineArgs(**arguments).create_engine_config()
            self._engine: LLMEngine | None = LLMEngine(
                config, Executor.get_class(config), log_stats=False, multiprocess_mode=False
            )
        except _FAULTS as error:
            raise EngineError(f"{model_dir}: the engine did not start: {one_line(error)}") from error
        # The engine dies of a text that is not a grammar, so it must never see one.
        self._grammars = Grammars(self._engine.get_tokenizer(), vocab=vocab) if grammars else None
        if accelerator == "cpu" and settings.pipeline_parallel > 1:
            self._engine.collective_rpc(make_room_between_stages)
        # Tried on a CPU alone; a GPU's small blocks leave little to compute a second time.
        keeps = accelerator == "cpu" and settings.ranks == 1 and unknown_version(vllm.__version__) is None
        self._sessions = Sessions(self._engine, as_input=tokens_input, keeps=keeps, most=settings.max_sequences)
        self._max_model_len = int(config.model_config.max_model_len)
        self._matrix_rows = int(config.model_config.get_vocab_size())
        if vocab > self._matrix_rows:
            self.close()
            raise EngineError(f"{model_dir}: the tokenizer has {vocab} ids, the model only {self._matrix_rows}")
        try:
            self._choose_reading()
        except EngineError:
            self.close()
            raise
        self._start_seconds = time.monotonic() - started
        _log.info("engine up in %.1f s: %s", self._start_seconds, self.describe())

    def describe(self) -> dict[str, str | int | float]:
        """What a log or a manifest wants to know about this engine."""
        return {
            "engine": f"vllm {vllm.__version__}",
            "device": current_platform.device_name,
            "model_dir": str(self._model_dir),
            "identity": self._digest,
            "start_seconds": round(self._start_seconds, 1),
            "logprobs": "arrays" if self._reading is keep_arrays else "lists",
        }

    def generate(self, requests: Iterable[GenerateRequest], *, k: int) -> Iterator[Outcome]:
        """One completion a request, its stop token included, with the noise of its own generation key.

        Raises:
            EngineError: the engine died or is closed, serves another call, or `k` is beyond `max_logprobs`.
        """
        self._require_k(k, least=0)
        return self._each(requests, k=k)

    def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Iterator[Outcome]:
        """Teacher-forced rows of the response tokens of given sequences; see `SequenceSource.score`.

        Raises:
            EngineError: the engine died or is closed, serves another call, or `k` is 0 or beyond `max_logprobs`.
        """
        self._require_k(k, least=1)
        return self._each(requests, k=k)

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """Answer requests of both kinds side by side; yields what each step of the engine has finished.

        `asked` is drawn from as the engine has room. None says that nothing more is to be had at the moment: the engine
        goes on with what it has, and asks again after a step. Positions do not count these.

        Raises:
            EngineError: the engine died or is closed, or serves another call.
        """
        engine = self._ready()
        self._condition.busy = True
        source, ended, position = iter(asked), False, 0
        flying: dict[str, tuple[int, Asked]] = {}
        try:
            while flying or not ended:
                while not ended and len(flying) < self._settings.max_sequences:
                    drawn = next(source, _END)
                    ended = drawn is _END
                    if not isinstance(drawn, Asked):
                        break
                    name = str(next(self._ids))
                    if (reason := self._submit(engine, name, drawn, under_way=len(flying))) is not None:
                        yield [(position, Failure(reason))]
                    else:
                        flying[name] = (position, drawn)
                    position += 1
                finished = [(*flying.pop(output.request_id), output) for output in self._step()] if flying else []
                if finished:
                    yield [(place, self._record(each, output)) for place, each, output in finished]
        finally:
            self._condition.busy = False
            if not self._condition.is_broken:
                engine.abort_request(list(flying))
                self._sessions.end_all()

    def load(self, model_dir: Path, *, identity: TeacherIdentity) -> None:
        """Replace the weights by those of another model of the same shape.

        Raises:
            ModelError: the shapes differ; the engine goes on with the old weights.
            EngineError: the update failed; the engine holds a mixture and refuses everything from then on.
        """
        require_same_shape(self._model_dir, model_dir)
        with self._new_weights(identity) as engine:
            engine.collective_rpc("reload_weights", kwargs={"weights_path": str(model_dir)})
        self._model_dir = model_dir

    def receive(self, source: WeightSource, *, shapes: Shapes, identity: TeacherIdentity) -> None:
        """Replace the weights by tensors of these shapes, which come from `source`.

        Raises:
            ModelError: the shapes are not those of the engine's model; it goes on with the old weights.
            EngineError: the update failed; the engine holds a mixture and refuses everything from then on.
        """
        require_shapes(self._model_dir, shapes, who="the weights that were sent")
        with self._new_weights(identity) as engine:
            engine.collective_rpc(take_weights, args=(source,))

    @contextmanager
    def _new_weights(self, identity: TeacherIdentity) -> Iterator[LLMEngine]:
        """Within, the weights change to those of another model; whatever was made from the old ones goes with them."""
        engine = self._ready()
        require_same_numerics(self.identity, identity)
        with self._condition.fatal():
            yield engine
            engine.apply_model(repack)
            cleared = engine.reset_prefix_cache()
        if not cleared:
            raise self._condition.died(RuntimeError("its prefix cache could not be cleared after a change of weights"))
        self.identity, self._digest = identity, identity.digest()

    def sleep(self) -> None:
        """Give the GPU's memory back until `wake`: weights go to the memory of the machine, KV blocks are dropped.

        Does nothing where the purpose is not "shared rollout", nor on a CPU, for which vLLM has no such mode.
        """
        engine = self._ready()
        if engine.vllm_config.model_config.enable_sleep_mode:
            with self._condition.fatal():
                engine.sleep(level=1)  # forgets the prefixes too, whose blocks are gone

    def wake(self) -> None:
        """Take the memory again; the weights are what they were. See `sleep`."""
        engine = self._ready()
        if engine.vllm_config.model_config.enable_sleep_mode:
            with self._condition.fatal():
                engine.wake_up()

    def checksums(self) -> dict[str, str]:
        """SHA-256 (hex) of each weight as the engine holds it, named `rank.parameter`; see `weight_digests`.

        Raises:
            EngineError: the engine died or is closed, or serves a call.
        """
        with self._condition.fatal():
            ranks: list[dict[str, str]] = self._ready().apply_model(weight_digests)
        return {f"{rank}.{name}": digest for rank, part in enumerate(ranks) for name, digest in part.items()}

    def forget_prefixes(self) -> None:
        """Keep nothing of what was computed for earlier requests, so that the next one is measured as a first one.

        Raises:
            EngineError: the engine died or is closed, or serves a call.
        """
        with self._condition.fatal():
            self._ready().reset_prefix_cache()

    def occupancy(self) -> Occupancy:
        """Memory that all processes of the engine take.

        Raises:
            EngineError: the engine died or is closed, or serves a call.
        """
        with self._condition.fatal():
            reserved: list[int] = self._ready().collective_rpc(most_reserved_bytes)
        return Occupancy(resident_bytes(), sum(reserved))

    def close(self) -> None:
        """End every process and socket of the engine and give its memory back. Closing twice does nothing."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        self._condition.close()
        shared = shared_by_children()
        try:
            engine.engine_core.shutdown()
            del engine
            cleanup_dist_env_and_memory()
        except _FAULTS as error:
            _log.warning("the engine did not shut down cleanly: %s", one_line(error))
        remove_files(shared)
        gc.collect()

    def _ready(self) -> LLMEngine:
        self._condition.require_free()
        assert self._engine is not None
        return self._engine

    def _require_k(self, k: int, *, least: int) -> None:
        if not least <= k <= self._max_logprobs:
            raise EngineError(f"k={k} is outside {least}..{self._max_logprobs}, what this engine can return")

    def _each(self, requests: Iterable[GenerateRequest | ScoreRequest], *, k: int) -> Iterator[Outcome]:
        with closing(self.work(Asked(request, k) for request in requests)) as steps:
            for finished in steps:
                yield from finished

    def _choose_reading(self) -> None:
        """Read log-probabilities as the engine's arrays where these hold what its lists hold, else as lists.

        Raises:
            EngineError: the engine died of the requests of the trial.
        """
        reason = unknown_version(vllm.__version__)
        if reason is None:
            self._reading = trial = Trial(vocab=self._vocab, most=self._max_logprobs)
            for _ in self.work(trial.requests):
                pass
            reason = trial.verdict()
        self._reading = keep_arrays if reason is None else keep_lists
        if reason is not None:
            _log.warning("vllm %s: rows are read through lists, 13 µs a token (K = 64): %s", vllm.__version__, reason)

    def _submit(self, engine: LLMEngine, name: str, asked: Asked, *, under_way: int) -> str | None:
        """Hand one request to the engine beside those that are under way; the reason when it is refused."""
        if (reason := refusal(asked.request, vocab=self._vocab, max_model_len=self._max_model_len)) is not None:
            return reason
        grammar = asked.request.grammar if isinstance(asked.request, GenerateRequest) else ""
        if grammar and (reason := self._refused_grammar(grammar)) is not None:
            return reason
        prompt, arguments = prompt_and_arguments(
            asked, identity_digest=self._digest, vocab=self._vocab, matrix_rows=self._matrix_rows
        )
        with self._condition.fatal():
            try:
                held = StructuredOutputsParams(grammar=grammar) if grammar else None
                params = SamplingParams(**arguments, structured_outputs=held, output_kind=RequestOutputKind.FINAL_ONLY)
                taken = self._sessions.hand_over(name, asked, prompt, params, under_way=under_way)
            except ValueError as error:
                # The engine checks a request before it takes it in; nothing of it is left behind.
                return f"vllm refused the request{QUOTED}{one_line(error)}"
            self._reading(engine, taken)
        return None

    def _refused_grammar(self, grammar: str) -> str | None:
        return "it reads no grammars" if self._grammars is None else self._grammars.refusal(grammar)

    def _record(self, asked: Asked, output: RequestOutput) -> TeacherRecord | Failure:
        self._sessions.answered(output.request_id, asked, finish=output.outputs[0].finish_reason)
        return answer(asked, output, identity_digest=self._digest, vocab=self._vocab)

    def _step(self) -> list[RequestOutput]:
        self._condition.require_whole()
        assert self._engine is not None
        with self._condition.fatal():
            outputs = self._engine.step()
            self._sessions.let_go_if_stuck()
        return [output for output in outputs if output.finished]
