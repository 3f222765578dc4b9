"""All that an experiment asks about: its prompts, what the teacher sees beside them, and windows of plain text.

What is planned and what is run must be the same rows, so both read them here.
"""

from __future__ import annotations

from dataclasses import replace

from cache.erasures import Erasures
from configs import DistillConfig
from configs.schema import DataConfig
from orchestration.inputs.forgotten_rows import without_forgotten
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.plain_windows import with_plain
from orchestration.inputs.prompt_splits import RowsRead, load_prompts
from orchestration.inputs.wide_prompts import Widened, with_context

LONG_BYTES = 8 * 2**20
"""Of files of rows; they take more than ten seconds to render and tokenise."""

LONG_ROWS = 10_000
"""Fewer rows of a file are read in a moment, however large it is."""


def takes_long(data: DataConfig) -> bool:
    """Whether the prompts take so long to read that it is worth to do other things meanwhile.

    Nobody knows it of a dataset of the hub that is not limited. A path that is not there is somebody else's to refuse.
    """
    whole = [source for source in data.splits.values() if source.limit is None or source.limit > LONG_ROWS]
    if any(source.path is None for source in whole):
        return True
    return sum(source.path.stat().st_size for source in whole if source.path and source.path.exists()) > LONG_BYTES


def read_prompts(
    config: DistillConfig, *, teacher: ModelFiles, progress: RowsRead = lambda split, rows: None
) -> Widened:
    """Read everything in the tokens of the first teacher, without what was forgotten.

    `progress` is told of which split how many rows are read.

    Raises:
        CacheError: what was forgotten cannot be read.
        ConfigError: rows say nothing by which they are sent to a teacher, or the teacher's context cannot be used.
        DataError: a split cannot be read or has no usable row, or a prompt stands in two splits.
    """
    tokenizer = teacher.tokenizer
    prompts = load_prompts(
        config.data,
        tokenizer=tokenizer,
        stop_ids=teacher.stop_ids,
        max_new_tokens=config.generation.max_new_tokens,
        route=config.route,
        progress=progress,
    )
    widened = with_context(prompts, config, tokenizer=tokenizer)
    read = replace(widened, prompts=with_plain(widened.prompts, config.data, tokenizer=tokenizer))
    return without_forgotten(read, Erasures.read(config.runtime.cache_root))
