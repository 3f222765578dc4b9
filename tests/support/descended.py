"""A student with its whole descent on disk: data, teacher, cache, views, run, start, and the stage before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finished_experiment import Experiment, write_model
from local_engines import EOS, MAX_MODEL_LEN, VOCAB

from cache import GenerateRequest, TeacherCache, TeacherRecord
from cache.fingerprint import fingerprint_model
from cache.identity import TeacherIdentity
from cache.views import CacheView
from configs import dump_config
from configs.places import RESOLVED, WRITTEN
from orchestration.inputs.real_paths import resolve_paths
from orchestration.lineage.records import MADE_OF, Foundation, lineage_of, to_summary, write_foundation
from orchestration.outputs.artifacts import digest_of
from orchestration.outputs.foundations import content_of, experiment_digest, model_digest
from student_train.papers import Papers, TaughtUnder, write_papers
from teacher_server.fake import FakeTeacher

SPLITS = ("train", "dev")


@dataclass(frozen=True, slots=True)
class Descent:
    """`student` came of `before` (the stage before), that of `start`, and all of them of `run`."""

    student: Path
    before: Path
    start: Path
    run: Path
    experiment: Experiment
    teacher: Path
    cache: Path

    @property
    def shard(self) -> Path:
        """A file of the cache that holds what the teacher said."""
        return next(path for path in sorted(self.cache.rglob("token_ids/c/0")) if path.is_file())


def descended(root: Path) -> Descent:
    """Make all of it below `root`."""
    experiment = Experiment(root / "yaml", root / "runs")
    experiment.write()
    config, teacher = experiment.config(), root / "yaml" / "teacher"
    content = content_of(config, config_dir=experiment.folder)
    run, artifacts = experiment.directory, experiment.artifacts
    run.mkdir(parents=True)
    (run / WRITTEN).write_text(dump_config(config))
    (run / RESOLVED).write_text(dump_config(resolve_paths(config, config_dir=experiment.folder)))
    write_foundation(Foundation(config.digest(), content), run, experiment=experiment_digest(config, content))
    learned = {run / "views" / f"{split}.npz": _asked(split, teacher, root / "cache") for split in SPLITS}
    for path, view in learned.items():
        view.save(path)
    digests = {path: view.digest for path, view in learned.items()}
    made_of: dict[str, object] = {"teacher": model_digest(teacher, models_root=root), "kept": [0]}
    start = digest_of(**made_of)
    folder = write_model(artifacts.init_dir(start), value=3.0)
    artifacts.keep_start(start, {MADE_OF: made_of})
    folders = [folder]
    for at, objective in enumerate(("seqkd", "kd")):
        train, dev = digests.values()
        stage = {"objective": objective, "seed": 7}
        made_of = {"start": start, "stage": stage, "train": train, "dev": dev}
        start = digest_of(**made_of)
        folder = write_model(artifacts.student_dir(start), value=4.0 + at)
        write_papers(folder, [Papers(TaughtUnder(name="teacher", label="the teacher", licence="llama3.3"))])
        lineage = lineage_of(run=run, run_root=root / "runs", start=folders[-1], start_model="", learned=digests)
        artifacts.keep_student(start, to_summary(lineage, made_of=made_of))
        folders.append(folder)
    return Descent(folders[2], folders[1], folders[0], run, experiment, teacher, root / "cache")


def _asked(split: str, teacher: Path, cache_root: Path) -> CacheView:
    prints = fingerprint_model(teacher)
    identity = TeacherIdentity(prints.weights_sha256, prints.config_sha256, dtype="float32")
    source = FakeTeacher(identity, vocab=VOCAB, eos_id=EOS, max_model_len=MAX_MODEL_LEN)
    cache, first = TeacherCache.open(cache_root, identity), 10 * SPLITS.index(split)
    requests = [GenerateRequest((first + number, 5), stop_ids=(EOS,), max_new_tokens=6) for number in range(3)]
    answers = [outcome for _, outcome in source.generate(requests, k=4)]
    kept = [(each, asked) for each, asked in zip(answers, requests, strict=True) if isinstance(each, TeacherRecord)]
    cache.put(kept, vocab=VOCAB)
    cache.refresh()
    return cache.view([record.key for record, _ in kept], dataset=f"teacher-{split}", k=4)
