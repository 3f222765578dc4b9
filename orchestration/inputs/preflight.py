"""Everything that can be refused before anything expensive starts. One line each: the key or path, and the cure."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import uuid4

from cache.disk.roots import probe_root
from configs import ConfigError, ModelError
from configs.experiments import AnyExperiment
from configs.models import Device
from configs.places import is_url
from configs.schema import DistillConfig, Dtype, ModelShape
from configs.teachers import FIRST
from orchestration.inputs.models import ModelFiles

FREE_MARGIN_BYTES = 2**30
"""Room that must remain on a disk beside what the run will write."""

NOT_IN_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "glm4")
"""Model types that vLLM refuses in float16 (`_FLOAT16_NOT_SUPPORTED_MODELS`, 0.32)."""


def require_cache(root: Path | str, *, needed_bytes: int = 0) -> None:
    """Prove that the cache root can be written and, where that can be known, has room.

    Raises:
        ConfigError: it cannot, or has not.
    """
    if not is_url(root):
        require_writable(Path(root), key="runtime.cache_root", needed_bytes=needed_bytes)
        return
    try:
        probe_root(str(root))
    except OSError as error:
        raise ConfigError(
            f"runtime.cache_root={root} cannot be written ({error.strerror}): check the bucket, the credentials and "
            "the endpoint in the environment"
        ) from error


def require_writable(path: Path, *, key: str, needed_bytes: int = 0) -> None:
    """Make `path` and prove that it can be written and has room.

    Raises:
        ConfigError: it cannot, or has not.
    """
    probe = path / f".probe-{uuid4().hex[:8]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_text("probe")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{key}={path} cannot be written ({error.strerror}): name another directory") from error
    free = shutil.disk_usage(path).free
    if free < needed_bytes + FREE_MARGIN_BYTES:
        raise ConfigError(
            f"{key}={path} has {free / 2**30:.1f} GiB free but the run needs {needed_bytes / 2**30:.1f} GiB and "
            f"{FREE_MARGIN_BYTES / 2**30:.0f} GiB to spare: free some, or name another directory"
        )


def require_fitting_lengths(config: DistillConfig, *, teacher: ModelShape, key: str = FIRST) -> None:
    """Refuse sequences longer than the teacher at `key`, and a k that its vocabulary does not have.

    That they fit the engines, whose limits stand in the configuration, is checked when that is loaded.

    Raises:
        ConfigError: naming both values.
    """
    prompt, limit = config.data.max_prompt_tokens, teacher.max_positions
    for block in ("generation", "evaluation"):
        answer = getattr(config, block).max_new_tokens
        if answer is not None and prompt + answer > limit:
            raise ConfigError(
                f"data.max_prompt_tokens={prompt} + {block}.max_new_tokens={answer} is more than the teacher's "
                f"{limit} positions: lower one of them"
            )
    if config.teacher.top_k > teacher.vocab:
        raise ConfigError(
            f"{key}.top_k={config.teacher.top_k} is more than the teacher's {teacher.vocab} tokens: lower it"
        )


def require_positions(config: AnyExperiment, *, model: str, shape: ModelShape, engine: str) -> None:
    """Refuse an engine that would take longer sequences than its model knows.

    Raises:
        ConfigError: naming both values.
    """
    limit = getattr(config.runtime, engine).max_model_len
    if limit > shape.max_positions:
        raise ConfigError(
            f"runtime.{engine}.max_model_len={limit} is more than the {shape.max_positions} positions of {model}: "
            f"lower it to {shape.max_positions} or less"
        )


def require_windows(config: DistillConfig, *, model: str, shape: ModelShape) -> None:
    """Refuse windows of plain text that are longer than a model reads.

    Raises:
        ConfigError: naming both values.
    """
    plain = config.data.plain
    if plain is not None and plain.max_tokens > shape.max_positions:
        raise ConfigError(
            f"data.plain.max_tokens={plain.max_tokens} is more than the {shape.max_positions} positions of {model}: "
            f"lower it to {shape.max_positions} or less"
        )


def require_servable(teacher: ModelFiles, *, dtype: Dtype, key: str = FIRST) -> None:
    """Refuse a teacher, the one at `key`, that its engine would refuse, minutes later.

    Raises:
        ModelError: its tokenizer has more ids than its matrix has rows, or it names no architecture.
        ConfigError: it cannot run in this dtype.
    """
    if teacher.vocab > teacher.shape.vocab:
        raise ModelError(
            f"{teacher.label}: its tokenizer has {teacher.vocab:,} tokens, its config.json {teacher.shape.vocab:,}: "
            "resize its embedding, or take the tokenizer that belongs to it"
        )
    built = teacher.architecture
    if not built.classes:
        raise ModelError(f"{teacher.label}: its config.json names no architectures: save it with save_pretrained")
    if dtype == "float16" and built.model_type in NOT_IN_FLOAT16:
        raise ConfigError(
            f"{key}.dtype=float16 overflows in a {built.model_type} model: set {key}.dtype: bfloat16 or float32"
        )


def require_compiler(device: Device) -> None:
    """On GPUs vLLM and Triton compile kernels while they run.

    Raises:
        ConfigError: there is no C compiler.
    """
    if device == "gpu" and not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        raise ConfigError("no C compiler found, and vLLM compiles GPU kernels while it runs: install gcc")
