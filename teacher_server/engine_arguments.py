"""How one engine is configured, from its settings and the identity of its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from cache.identity import TeacherIdentity
from configs.errors import EngineError
from configs.models import Device
from configs.schema import EngineSettings

Purpose = Literal["fill", "rollout", "shared rollout"]
"""Whether an engine answers each prompt once, or continues sequences that another engine continues in turn; and whether
it sleeps in between, because it shares its GPU with a training worker."""

CPU_ROLLOUT_BLOCK = 32
"""Tokens of a KV block for rollouts on a CPU, the smallest that its kernels take."""

SHARED_UTILIZATION = 0.01
"""Share of its GPU that must be free for an engine to start beside others. vLLM asks for 0.92 by default, although it
measures nothing by that share once it is given the size of its KV cache (`request_memory` and
`determine_available_memory` of its GPU worker, 0.32)."""


def engine_arguments(
    model_dir: Path,
    *,
    identity: TeacherIdentity,
    settings: EngineSettings,
    seed: int,
    accelerator: Device,
    purpose: Purpose = "fill",
    grammars: bool = False,
) -> dict[str, Any]:
    """Keyword arguments of `vllm.EngineArgs`.

    The model is read from safetensors without remote code; its generation_config.json, which would add stops of its
    own, is ignored. A tokenizer is loaded only where answers are held to `grammars`, by llguidance: each row may have a
    grammar of its own, and it prepares no vocabulary for one (docs/decisions/0027). `max_num_batched_tokens` is bounded
    because the engine materialises float32 logits of all tokens of a step when it scores. Limits of k are kept by the
    caller.

    For a fill, KV blocks keep the platform's size: on a CPU that is 128 tokens, so only prompts with a longer common
    beginning share it, and blocks of 32 made writing 10-15 % slower. A rollout continues every sequence many times,
    and only whole blocks of what was computed before are found again: extending 150 tokens twelve times by 4 took 1.4
    times as long as writing 48 at once with blocks of 32, and 3.4 times with 128. An engine of one process keeps them
    open instead (`sessions`) and fills smaller blocks better. On a GPU the platform's own size is small.

    On a CPU there is no compilation (50 s of start for at most 3 % of speed) and no chunked prefill: a sampled request
    crashes the CPU engine when its prompt is split over steps, so one step must hold any prompt.
    """
    return {
        "model": str(model_dir),
        "skip_tokenizer_init": not grammars,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "use_tqdm_on_load": False,
        "generation_config": "vllm",
        "max_logprobs": -1,
        "seed": seed,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        **({"structured_outputs_config": {"backend": "guidance"}} if grammars else {}),
        **_numerics(identity),
        **_sizes(settings, on_cpu=accelerator == "cpu"),
        **_layout(purpose, on_cpu=accelerator == "cpu"),
    }


def with_half_a_batch(settings: EngineSettings, *, accelerator: Device) -> EngineSettings:
    """An engine whose steps take half the memory: half the tokens and sequences; the same where fewer cannot be.

    A step has to hold a prompt of any length on a CPU, and a token of every sequence on a GPU.
    """
    sequences = max(settings.max_sequences // 2, 1)
    least = settings.max_model_len if accelerator == "cpu" else sequences
    tokens = max(settings.max_batched_tokens // 2, min(least, settings.max_batched_tokens))
    return settings.model_copy(update={"max_batched_tokens": tokens, "max_sequences": sequences})


def _numerics(identity: TeacherIdentity) -> dict[str, Any]:
    """What changes the numbers, as the identity has it."""
    return {
        "dtype": identity.dtype,
        "quantization": identity.quantization,
        "kv_cache_dtype": identity.kv_cache_dtype,
        "hf_overrides": json.loads(identity.hf_overrides) if identity.hf_overrides else {},
        "logprobs_mode": identity.logprobs_mode,
    }


def _sizes(settings: EngineSettings, *, on_cpu: bool) -> dict[str, Any]:
    return {
        "max_model_len": settings.max_model_len,
        "max_num_batched_tokens": max(settings.max_batched_tokens, settings.max_model_len if on_cpu else 1),
        "max_num_seqs": settings.max_sequences,
        "kv_cache_memory_bytes": int(settings.kv_cache_gib * 2**30),
        "enable_chunked_prefill": not on_cpu,
        "enforce_eager": on_cpu,
        "tensor_parallel_size": settings.tensor_parallel,
        "pipeline_parallel_size": settings.pipeline_parallel,
        # Named, because inside a Ray actor vLLM would otherwise start its workers through Ray.
        "distributed_executor_backend": "mp" if settings.ranks > 1 else "uni",
    }


def _layout(purpose: Purpose, *, on_cpu: bool) -> dict[str, Any]:
    """How memory is divided, where it is not as the platform has it."""
    if on_cpu and purpose != "fill":
        return {"block_size": CPU_ROLLOUT_BLOCK}
    if purpose == "shared rollout":
        return {"enable_sleep_mode": True, "gpu_memory_utilization": SHARED_UTILIZATION}
    return {}


def require_declared(identity: TeacherIdentity, *, dtype: str, quantization: str | None) -> None:
    """Refuse an engine whose precision is not the one that its records will be filed under.

    Raises:
        EngineError: naming both values.
    """
    for name, value in (("dtype", dtype), ("quantization", quantization)):
        declared = getattr(identity, name)
        if declared != value:
            raise EngineError(
                f"the engine is asked for {name}={value}, its identity says {name}={declared}: align them"
            )


def require_same_numerics(running: TeacherIdentity, wanted: TeacherIdentity) -> None:
    """Refuse new weights under an identity that this engine could only honour after a restart.

    Raises:
        EngineError: naming the field and both values.
    """
    for name in ("dtype", "quantization", "kv_cache_dtype", "logprobs_mode", "hf_overrides", "adapter_sha256"):
        here, there = getattr(running, name), getattr(wanted, name)
        if here != there:
            raise EngineError(f"a running engine of {name}={here} cannot become one of {name}={there}: start another")
