"""What does not fit is refused: too few GPUs or CPUs, a model that cannot be split so, too little memory.

Each refusal names the keys, their values and the cure. What rollouts need at the same time is `colocation`'s to say.
"""

from __future__ import annotations

from configs import ConfigError
from configs.schema import EngineSettings, ModelShape, TrainingSettings
from orchestration.plan.hardware import GIB, Hardware
from orchestration.plan.memory import USABLE, MemoryFit, kv_tokens


def require_engine_room(settings: EngineSettings, *, key: str, hardware: Hardware) -> None:
    """Refuse engines for which there are too few GPUs or CPUs: they would wait forever. `key` is their block.

    Raises:
        ConfigError: naming keys and cure.
    """
    count, width, groups = settings.count, settings.ranks, split_in_words(settings)
    if hardware.accelerator == "cpu":
        if width > 1:
            split = "tensor_parallel" if settings.tensor_parallel > 1 else "pipeline_parallel"
            raise ConfigError(f"{key}.{split}={getattr(settings, split)} needs GPUs: set it to 1, or raise {key}.cpus")
        if settings.max_batched_tokens < settings.max_model_len:
            # A prompt cut in chunks crashes seeded requests on the CPU engine, so it must fit one batch.
            raise ConfigError(
                f"{key}.max_batched_tokens={settings.max_batched_tokens} is less than "
                f"max_model_len={settings.max_model_len}, which the CPU engine needs: raise the first"
            )
        _check_cpus(count * settings.cpus, f"{key}.count={count} x cpus={settings.cpus}", hardware)
        return
    if width > hardware.gpus_per_node:
        raise ConfigError(
            f"{key}.{groups} is more than the {hardware.gpus_per_node} GPUs of a node "
            "(runtime.gpus_per_node), and an engine stays on one node: lower it"
        )
    room = hardware.nodes * (hardware.gpus_per_node // width)
    if count > room:
        raise ConfigError(
            f"{key}.count={count} x {groups} does not fit {hardware.nodes} nodes x "
            f"{hardware.gpus_per_node} GPUs, which hold {room} whole engines: set count to {room} or less"
        )


def require_worker_room(settings: TrainingSettings, *, hardware: Hardware) -> None:
    """Refuse more workers than there are GPUs (one each) or CPUs for.

    Raises:
        ConfigError: naming keys and cure.
    """
    count = settings.workers
    if hardware.accelerator == "cpu":
        asked = f"runtime.training.workers={count} x cpus_per_worker={settings.cpus_per_worker:g}"
        _check_cpus(count * settings.cpus_per_worker, asked, hardware)
        return
    room = hardware.nodes * hardware.gpus_per_node
    if count > room:
        raise ConfigError(
            f"runtime.training.workers={count} is more than the {room} GPUs of {hardware.nodes} nodes x "
            f"{hardware.gpus_per_node}: set it to {room} or less"
        )


def require_engine_fits(settings: EngineSettings, *, key: str, who: str, shape: ModelShape, dtype: str) -> None:
    """Refuse what the engine itself would refuse, minutes later: an uneven split, a cache too small for one row.

    `key` is the engine's block, and `who` the model that it holds.

    Raises:
        ConfigError: naming keys and cure.
    """
    split, stages = settings.tensor_parallel, settings.pipeline_parallel
    if stages > shape.layers:
        raise ConfigError(
            f"{key}.pipeline_parallel={stages} is more than the {shape.layers} layers of {who}: lower it to "
            f"{shape.layers} or less"
        )
    if not _splits_evenly(shape, split):
        fine = ", ".join(str(ways) for ways in range(1, 2 * split) if _splits_evenly(shape, ways))
        raise ConfigError(
            f"{key}.tensor_parallel={split} does not divide {who} (heads={shape.heads}, kv_heads={shape.kv_heads}, "
            f"mlp={shape.mlp}): set it to one of {fine}"
        )
    held = kv_tokens(shape, settings=settings, dtype=dtype)
    if held < settings.max_model_len:
        raise ConfigError(
            f"{key}.kv_cache_gib={settings.kv_cache_gib:g} holds {held} tokens of {who} but "
            f"{key}.max_model_len={settings.max_model_len}: raise the first or lower the second"
        )


def require_fit(fit: MemoryFit, hardware: Hardware) -> None:
    """Refuse what a GPU has no room for.

    Raises:
        ConfigError: naming what it needs, what there is, and the cure.
    """
    if fit.fits(memory_gib=hardware.gpu_memory_gib):
        return
    terms = ", ".join(f"{item.name} {item.size_bytes / GIB:.1f}" for item in fit.items)
    raise ConfigError(
        f"{fit.label} needs {fit.total_bytes / GIB:.1f} GiB a GPU{assumed_mark(assumed=fit.assumed)} but "
        f"{hardware.gpu_memory_gib * USABLE:.1f} of runtime.gpu_memory_gib={hardware.gpu_memory_gib:g} are usable "
        f"({terms}): {fit.cure}"
    )


def split_in_words(settings: EngineSettings) -> str:
    """How an engine is split, by the keys that say it."""
    split = f"tensor_parallel={settings.tensor_parallel}"
    return split if settings.pipeline_parallel == 1 else f"{split} x pipeline_parallel={settings.pipeline_parallel}"


def assumed_mark(*, assumed: bool) -> str:
    """What stands behind a number that rests on a shape from the YAML."""
    return " (assumed)" if assumed else ""


def _check_cpus(needed: float, asked: str, hardware: Hardware) -> None:
    """With more than there are the scheduler would wait forever."""
    if hardware.cpus is not None and needed > hardware.nodes * hardware.cpus:
        there = f"{hardware.nodes} nodes x {hardware.cpus}" if hardware.nodes > 1 else str(hardware.cpus)
        raise ConfigError(f"{asked} needs {needed:g} CPUs but there are {there}: lower one of them")


def _splits_evenly(shape: ModelShape, ways: int) -> bool:
    """Whole heads and equal slices for every rank; few key-value heads may be repeated, a whole number of times."""
    kv_fine = shape.kv_heads % ways == 0 or ways % shape.kv_heads == 0
    return shape.heads % ways == 0 and shape.mlp % ways == 0 and kv_fine
