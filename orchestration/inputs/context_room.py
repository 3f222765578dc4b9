"""How much of a wider context a teacher with a head has room for, known before anything is loaded or tuned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from configs import ConfigError
from configs.task_teacher import TaskTeacherConfig
from configs.teachers import FIRST, key_of_teacher
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.task_context import require_room_for_context, shows_text
from orchestration.inputs.tasks import LoadedTask
from orchestration.inputs.wide_texts import read_wide

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def with_room_noted(
    sets: TaskSets,
    task: LoadedTask,
    *,
    teacher: TaskTeacherConfig,
    tokenizer: PreTrainedTokenizerBase,
    name: str = FIRST,
) -> TaskSets:
    """The sets with a note of how much of the context a teacher does not read: of all their texts, dev and test too.

    Raises:
        ConfigError: there is no room for any of it, or nothing stands around any row.
    """
    if teacher.answers != "head" or not shows_text(task.context):
        return sets
    require_room_for_context(task.config, task.context, answers=teacher.answers)
    key = key_of_teacher(name)
    texts = (*sets.of(sets.sets), *task.dev, *task.test)
    read = read_wide(tokenizer, texts, task=task.config, max_tokens=teacher.max_tokens)
    around = [one for one in read if one.context or one.context_cut]
    if not around:
        raise ConfigError(
            "teacher_context shows nothing: no row has a neighbour or a passage with a word in it: correct "
            "neighbours.within or passage_field, or remove teacher_context"
        )
    if not any(one.context for one in around):
        least = min(len(one.token_ids) for one in around)
        raise ConfigError(
            f"{key}.max_tokens={teacher.max_tokens} leaves no room for teacher_context beside texts of {least} tokens "
            "and more: raise it, or remove teacher_context"
        )
    cut = [one for one in around if one.context_cut]
    if not cut:
        return sets
    tokens, bare = sum(one.context_cut for one in cut), sum(not one.context for one in cut)
    note = (
        f"teacher_context: {len(cut):,} of {len(texts):,} texts have some of it cut, {tokens:,} tokens in all, to "
        f"{key}.max_tokens={teacher.max_tokens}"
    )
    return replace(sets, notes=(*sets.notes, note + (f"; {bare:,} of them have no room for any" if bare else "")))
