"""A language model as the door serves it, whichever kind of experiment names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.identity import Identity
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.serving_sequences import ServedTeacher
from orchestration.inputs.models import ModelFiles
from teacher_server.http.sequence_desk import DeskTerms
from teacher_server.http.served import TeacherFacts
from teacher_server.startup_check import check_prompts


def served_model(
    files: ModelFiles,
    identity: Identity,
    *,
    spec: EngineSpec,
    cache_root: Path | str,
    references: Path,
    terms: DeskTerms,
    texts: tuple[str, ...],
    template_variables: Mapping[str, Any],
) -> ServedTeacher:
    """What the door needs to know of a model; its engines are compared on `texts` with passes kept in `references`.

    They read grammars, since whoever asks may have answers held to some.
    """
    longest = spec.settings.max_model_len
    return ServedTeacher(
        spec=replace(spec, grammars=True),
        cache_root=cache_root,
        terms=terms,
        facts=TeacherFacts(identity, longest, files.stop_ids, files.label, vocab_sha256=files.vocab_sha256),
        bos_id=files.leading_bos,
        check_prompts=tuple(
            check_prompts(
                [tuple(files.tokenizer(text).input_ids) for text in texts],
                bos_id=files.leading_bos,
                max_model_len=longest,
                count=len(texts),
            )
        ),
        references=references / identity.digest()[:16],
        template_variables=template_variables,
    )
