"""A language model as the door serves it; what of an experiment it is told: test_serve.py and test_serve_task.py."""

from __future__ import annotations

from pathlib import Path

from task_files import IDENTITY, tiny_model

from configs.schema import EngineSettings
from orchestration.cluster.planned_engine import engine_spec
from orchestration.commands.serve_model import served_model
from teacher_server.http.sequence_desk import DeskTerms


def test_engines_are_compared_on_texts_that_they_can_read(tmp_path: Path) -> None:
    files = tiny_model(tmp_path)
    settings = EngineSettings.model_validate({"max_model_len": 48, "count": 1, "cpus": 1})
    spec = engine_spec(files, IDENTITY, settings=settings, k=1, accelerator="cpu", log_dir=tmp_path)
    terms = DeskTerms(vocab=files.vocab, most_k=1)
    served = served_model(
        files, IDENTITY, spec=spec, cache_root=tmp_path, references=tmp_path / "references", terms=terms,
        texts=("one text " * 20, "another"), template_variables={},
    )  # fmt: skip
    assert served.check_prompts and all(0 < len(ids) < 48 for ids in served.check_prompts)
    assert served.facts.max_model_len == 48 and served.facts.stop_ids == files.stop_ids
    # Whoever asks may have answers held to grammars.
    assert served.spec.grammars and not spec.grammars
    # Forward passes of one teacher are not those of another.
    assert served.references == tmp_path / "references" / IDENTITY.digest()[:16]
