"""What an experiment takes from inside its teacher: which layers, of which states, and whether they can be matched.

Sizes are enough for that, so what cannot work is refused before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from configs import ConfigError
from configs.architecture import TextModel
from configs.task_experiment import TaskDistillConfig
from configs.task_features import FeatureTerm, InsideSizes, LayerPairs, StateName
from configs.task_stages import TaskStageConfig
from configs.task_starts import BagStart, RecurrentStart, TaskStart


def inside_of_start(start: TaskStart, *, teacher: TextModel, own: TextModel | None) -> InsideSizes | None:
    """Of a student by where it starts; `own` is its model. None where that is not at hand."""
    if isinstance(start, RecurrentStart | BagStart):
        embedded = start.embedding_size or teacher.hidden
        read = (start.hidden or embedded) if isinstance(start, BagStart) else 2 * start.hidden
        return InsideSizes((embedded, read), heads=None)
    if start.shape is not None:
        return InsideSizes((start.shape.hidden,) * (start.shape.layers + 1), start.shape.heads)
    whole = teacher if start.model is None else own
    if whole is None:
        return None
    width = start.hidden_size or whole.hidden
    return InsideSizes((width,) * (start.layers_of(whole.layers) + 1), start.attention_heads or whole.heads)


def state_names(stage: TaskStageConfig, *, student: InsideSizes, teacher: InsideSizes) -> tuple[StateName, ...]:
    """The states that the cache has to hold of every example of a stage.

    Raises:
        ConfigError: a term whose layers or sizes cannot be matched.
    """
    terms = (term for term in stage.features if term.is_kept)
    names = [(layer, term.where) for term in terms for _, layer in term.matched(student=student, teacher=teacher)]
    return tuple(dict.fromkeys(names))


def wanted_states(
    config: TaskDistillConfig, *, teacher: TextModel, models: Mapping[str, TextModel]
) -> tuple[StateName, ...]:
    """The states that an experiment asks for, each once; `models` are those of students with one of their own.

    Raises:
        ConfigError: a term whose layers or sizes cannot be matched.
    """
    found = [
        (layer, term.where)
        for term, pairs in _matched(config, teacher=teacher, models=models)
        for _, layer in pairs
        if term.is_kept
    ]
    return tuple(dict.fromkeys(found))


def require_general_matched(config: TaskDistillConfig, *, teacher: TextModel, models: Mapping[str, TextModel]) -> None:
    """Refuse terms of general stages whose layers or sizes cannot be matched; `models` as in `wanted_states`.

    Raises:
        ConfigError: naming the term and the cure.
    """
    for name, student in config.students.items():
        ours = inside_of_start(student.start, teacher=teacher, own=models.get(name))
        for number, stage in enumerate(student.general if ours is not None else ()):
            for place, term in enumerate(stage.features):
                assert ours is not None
                _pairs(term, f"students.{name}.general.{number}.features.{place}", ours, teacher.inside)


def _pairs(term: FeatureTerm, key: str, student: InsideSizes, teacher: InsideSizes) -> LayerPairs:
    try:
        return term.matched(student=student, teacher=teacher)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _matched(
    config: TaskDistillConfig, *, teacher: TextModel, models: Mapping[str, TextModel]
) -> Iterator[tuple[FeatureTerm, LayerPairs]]:
    """Every term of every student whose sizes are known, with the layers that it matches."""
    theirs = teacher.inside
    for name, student in config.students.items():
        ours = inside_of_start(student.start, teacher=teacher, own=models.get(name))
        for number, stage in enumerate(student.stages if ours is not None else ()):
            for place, term in enumerate(stage.features):
                assert ours is not None
                yield term, _pairs(term, f"students.{name}.stages.{number}.features.{place}", ours, theirs)
