"""The teachers of an experiment, as `distill cache verify` holds them against what their caches keep."""

from __future__ import annotations

from configs import ConfigError, DistillConfig
from configs.teachers import key_of_teacher
from orchestration.cache_tools.actions import SHORTEST_PREFIX
from orchestration.inputs.teachers import Teacher, open_teachers


def configured_teachers(config: DistillConfig, prefix: str | None) -> dict[str, Teacher]:
    """By name those whose identity begins like this; all of them without a prefix.

    Raises:
        ConfigError: there is none, or the weights of one are not here.
        ModelError: one cannot be found or read.
    """
    found = open_teachers(config)
    if prefix is None:
        return _with_weights(found)
    digests = {name: teacher.identity.digest() for name, teacher in found.items()}
    chosen = {name: found[name] for name, digest in digests.items() if digest.startswith(prefix.lower())}
    if not chosen or len(prefix) < SHORTEST_PREFIX:
        known = ", ".join(f"{name} is {digest[:12]}" for name, digest in digests.items())
        raise ConfigError(
            f"no teacher of {config.name} begins with {prefix}: name {SHORTEST_PREFIX} or more digits; {known}"
        )
    return _with_weights(chosen)


def _with_weights(teachers: dict[str, Teacher]) -> dict[str, Teacher]:
    """The same, of which each can be read here: what a door says is no proof of what the cache has from it."""
    for name, teacher in teachers.items():
        if not teacher.identity.verifiable:
            raise ConfigError(
                f"{key_of_teacher(name)}: {teacher.known_as}: its rows can only be held against what its provider says "
                "now: fill under another epoch, and compare"
            )
        if not teacher.files.has_weights:
            raise ConfigError(
                f"{key_of_teacher(name)}.model={teacher.files.label} holds no weights, because the teacher answers "
                f"behind {key_of_teacher(name)}.serve: verify its cache where its weights are"
            )
    return teachers
