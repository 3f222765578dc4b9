"""An experiment that looks finished: real data, weights, cache, views, students and evaluations; made-up numbers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from local_engines import EOS, IDENTITY, VOCAB, fake_teacher
from results_builders import model_results, run_results
from safetensors.numpy import save_file

from cache import GenerateRequest, TeacherCache, TeacherRecord
from configs import DistillConfig
from orchestration.comparison.report import Report, write_report
from orchestration.comparison.show import run_directory, show_finished
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.foundations import rested_on

START, STUDENT, EVALUATION = "a1" * 32, "b2" * 32, "c3" * 32
SPLITS = ("train", "dev", "test")


def write_model(folder: Path, *, value: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": np.full((4, 4), value, dtype=np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"hidden_size": 4}')
    (folder / "tokenizer.json").write_text('{"vocab": {}}')
    (folder / "notes.md").write_text("made by hand")
    return folder


@dataclass
class Experiment:
    """An experiment in a folder of its own that looks finished; `shown` is what a second start would print."""

    folder: Path
    runs: Path

    def config(self, *, teacher: dict[str, Any] | None = None, **changes: Any) -> DistillConfig:
        stages = [{"objective": "kd", "steps": 1, **changes}]
        return DistillConfig.model_validate(
            {
                "name": "looked-at",
                "teacher": {"model": teacher or {"path": "teacher"}},
                "data": {name: {"path": f"{name}.jsonl"} for name in SPLITS},
                "students": {
                    "kd": {"init": {"keep_layers": 1}, "stages": stages},
                    "own": {"init": {"model": {"path": "own"}}, "stages": stages},
                },
                "runtime": {
                    "run_root": str(self.runs),
                    "cache_root": str(self.runs.parent / "cache"),
                    "models_root": str(self.runs.parent / "models"),
                },
            }
        )

    def write(self) -> None:
        """The YAML's own files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in SPLITS:
            (self.folder / f"{name}.jsonl").write_text(f'{{"prompt": "{name}"}}\n')
        write_model(self.folder / "teacher", value=1.0)
        write_model(self.folder / "own", value=2.0)

    @property
    def directory(self) -> Path:
        return run_directory(self.config(), config_dir=self.folder)

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.runs)

    def finish(self, *failures: str, **models: Path) -> None:
        """Leave what a run leaves."""
        directory, artifacts = self.directory, self.artifacts
        for split in SPLITS:
            self.ask(split).save(directory / "views" / f"teacher-{split}.npz")
        write_model(artifacts.init_dir(START), value=3.0)
        artifacts.keep_start(START, {})
        write_model(artifacts.student_dir(STUDENT), value=4.0)
        artifacts.keep_student(STUDENT, {"selected_step": 1})
        artifacts.write_evaluation(EVALUATION, {"nats": 0.5})
        rests_on = rested_on(self.config(), directories=models, starts=[START], students=[STUDENT], run_dir=directory)
        row = model_results("kd", answers=("an answer",), closeness=None, failures=failures)
        asked: dict[str, Any] = {"prompts": ("p",), "references": ("r",), "reference_tokens": (1,)}
        results = run_results(row, experiment="looked-at", **asked)
        write_report(Report(results, rests_on, {EVALUATION: "what answers found of kd"}), directory)

    def ask(self, split: str) -> Any:
        """Have the teacher answer some prompts, and pin its answers."""
        cache = TeacherCache.open(self.runs.parent / "cache", IDENTITY)
        first = 10 * SPLITS.index(split)
        requests = [GenerateRequest((first + number, 5), stop_ids=(EOS,), max_new_tokens=6) for number in range(3)]
        records = [outcome for _, outcome in fake_teacher().generate(requests, k=4)]
        kept = [
            (each, request) for each, request in zip(records, requests, strict=True) if isinstance(each, TeacherRecord)
        ]
        cache.put(kept, vocab=VOCAB)
        cache.refresh()
        return cache.view([record.key for record, _ in kept], dataset=f"teacher-{split}", k=4)

    def shown(self) -> str:
        stream = io.StringIO()
        report = show_finished(self.config(), config_dir=self.folder, stream=stream)
        assert (report is not None) == ("is finished" in stream.getvalue()) == ("an answer" in stream.getvalue())
        return stream.getvalue()
