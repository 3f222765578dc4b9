"""What an experiment rests on beside its configuration, by content: data, models, the rows of the cache, students.

Names prove nothing: a file is rewritten, weights are replaced in place, the same YAML lies in another folder with
other data. So the run directory is named by the configuration and by what its files hold (`content_of`), and a
finished comparison lists the digests that it was made from (`RestsOn`); it is shown only while all of them hold.
Data and models of a hub are known by id and revision, and a model also by the files that were loaded.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cache import TeacherCache
from cache.disk.directory import read_identity
from cache.disk.roots import open_storage
from cache.fingerprint import ModelFingerprint, config_sha256, fingerprint_model
from cache.narrowed import SUFFIX, NarrowedView
from cache.opening import open_view, rows_of
from configs import ConfigError, DistillConfig, DistillError, load_task_file, resolve_data_path
from configs.data import PlainConfig
from configs.experiments import AnyExperiment
from configs.model_files import companions, has_weights
from configs.models import ModelSource
from configs.places import FINGERPRINTS
from configs.regular_files import read_regular
from configs.screening import ContentConfig
from configs.task_data import ByModel
from configs.task_experiment import TaskDistillConfig
from configs.task_starts import TransformerStart
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.outputs.kept import FileDigests, file_sha256
from student_train.handoff.rollouts import RolloutExchange

GUARD_MODEL = "content.guard.model"
"""The key of the model that judges texts."""

UNUSABLE = "unusable"
"""Stands for the digest of what is missing or cannot be read; whoever needs it says why."""

COMMIT_BYTES = 4096
"""The file of a branch holds the name of a commit and nothing else."""

MANY_BYTES = 10**9
"""More weights than this take long enough to hash that a line is printed first."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestsOn:
    """What a comparison was made from.

    `models` maps the key of a model to the digest of the files that were loaded and `directories` to where these lay;
    `views` maps the name of a view's file to its digest. `starts` and `students` are what kept models are addressed by.
    """

    models: Mapping[str, str]
    directories: Mapping[str, str]
    views: Mapping[str, str]
    starts: tuple[str, ...]
    students: tuple[str, ...]


def content_of(config: AnyExperiment, *, config_dir: Path, say: Callable[[str], None] = logger.info) -> dict[str, str]:
    """SHA-256 (hex) of every local file or model that the configuration names, by its key.

    What cannot be read is `UNUSABLE`. `say` gets a line before much is hashed.
    """
    runtime = config.runtime
    digests = Artifacts(runtime.run_root).digests
    asked: dict[str, Callable[[], str]] = {}
    for key, path in _files(config):
        asked[key] = partial(_file, path, config_dir=config_dir, digests=digests)
    for key, source in model_sources(config):
        if source.path is not None:
            asked[key] = partial(_local, source.path, config_dir=config_dir, models_root=runtime.models_root, say=say)
        elif source.package is not None:
            asked[key] = partial(_packaged, source, digests=digests, models_root=runtime.models_root)
    for key, path in _tasks(config):
        asked[key] = partial(_task, path, config_dir=config_dir, digests=digests)
    for key, path, count in _former_rollouts(config):
        asked[key] = partial(_rollouts, path, count, config_dir=config_dir)
    return {key: _unless_unusable(digest) for key, digest in asked.items()}


def require_unchanged(config: AnyExperiment, *, config_dir: Path, since: Mapping[str, str]) -> None:
    """Make sure that what `content_of` gave at the start of a run is still true.

    Raises:
        ConfigError: a file or a model was changed since, so the run directory bears the name of another content.
    """
    now = content_of(config, config_dir=config_dir)
    changed = [key for key, digest in since.items() if now.get(key) != digest]
    if changed:
        raise ConfigError(f"{', '.join(changed)}: changed while the experiment was running: run it again")


def experiment_digest(config: AnyExperiment, content: Mapping[str, str]) -> str:
    """What an experiment is addressed by: all that changes its numbers."""
    return digest_of(config=config.digest(), content=dict(content))


def model_digest(directory: Path, *, models_root: Path, say: Callable[[str], None] = logger.info) -> str:
    """SHA-256 (hex) of a model: weights, configuration, and the files that decide what it reads and where it stops.

    Where weights are not here (of a teacher that is served elsewhere) it is of the rest.

    Raises:
        ModelError: weights are not sound, or a file is not a regular one.
        OSError: one cannot be read.
    """
    announced = False

    def progress(done: int, total: int) -> None:
        nonlocal announced
        if total > MANY_BYTES and not announced:
            announced = True
            say(f"{directory}: {total / 1e9:,.1f} GB of weights are hashed, once")

    if has_weights(directory):
        prints = fingerprint_model(directory, memo=models_root / FINGERPRINTS, progress=progress)
    else:
        prints = ModelFingerprint("", config_sha256(directory))
    read = {str(path.relative_to(directory)): file_sha256(path) for path in companions(directory)}
    return digest_of(weights=prints.weights_sha256, config=prints.config_sha256, companions=read)


def model_sources(config: AnyExperiment) -> Iterator[tuple[str, ModelSource]]:
    """Every model that the configuration names, with its key."""
    if config.content is not None and config.content.guard is not None:
        yield GUARD_MODEL, config.content.guard.model
    match config:
        case DistillConfig():
            yield "teacher.model", config.teacher.model
            yield from ((f"teachers.{name}.model", each.model) for name, each in config.teachers.items())
            for name, student in config.students.items():
                if student.init.model is not None:
                    yield f"students.{name}.init.model", student.init.model
        case TaskDistillConfig():
            yield "teacher.model", config.teacher.model
            yield from ((f"teachers.{name}.model", each.model) for name, each in config.teachers.items())
            for name, each in config.students.items():
                if isinstance(each.start, TransformerStart) and each.start.model is not None:
                    yield f"students.{name}.start.model", each.start.model
            for name, made in config.data.augment.items():
                if isinstance(made, ByModel):
                    yield f"data.augment.{name}.model", made.model


def rested_on(
    config: AnyExperiment,
    *,
    directories: Mapping[str, Path],
    starts: Iterable[str],
    students: Iterable[str],
    run_dir: Path,
) -> RestsOn:
    """What a comparison was made from; `directories` are those of the models, by their keys.

    Raises:
        DistillError, OSError: a part of it has gone since.
    """
    folder = run_dir / "views"
    return RestsOn(
        models={
            key: model_digest(directory, models_root=config.runtime.models_root)
            for key, directory in directories.items()
        },
        directories={key: str(directory.absolute()) for key, directory in directories.items()},
        views={str(path.relative_to(folder)): rows_of(open_view(path)).digest for path in views_below(folder)},
        starts=tuple(dict.fromkeys(starts)),
        students=tuple(dict.fromkeys(students)),
    )


def what_broke(rests_on: RestsOn, *, config: AnyExperiment, run_dir: Path, artifacts: Artifacts) -> str | None:
    """The first thing that a comparison was made from and that is not the same any more; None when all of it is."""
    try:
        return _what_broke(rests_on, config=config, run_dir=run_dir, artifacts=artifacts)
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    except ValueError as error:
        return f"it names files that no disk can hold ({error})"


def _what_broke(rests_on: RestsOn, *, config: AnyExperiment, run_dir: Path, artifacts: Artifacts) -> str | None:
    for key, source in model_sources(config):
        if source.path is not None:
            continue  # Its content is in the name of the run directory.
        directory = Path(rests_on.directories.get(key, ""))
        found = _unless_unusable(partial(model_digest, directory, models_root=config.runtime.models_root))
        if found != rests_on.models.get(key):
            return f"{key} is not what it was ({directory})"
        if _has_moved(directory, source):
            return f"{key} has a newer revision than the one in {directory}"
    for digest in rests_on.starts:
        if not artifacts.has_start(digest):
            return f"the untouched student {artifacts.init_dir(digest)} is not what it was"
    for digest in rests_on.students:
        if artifacts.read_student(digest) is None:
            return f"the student {artifacts.student_dir(digest)} is not what it was"
    try:
        for name, digest in rests_on.views.items():
            _require_rows(run_dir / "views" / name, digest=digest, cache_root=config.runtime.cache_root)
    except DistillError as error:
        return f"what the teacher said is not all there any more ({error})"
    return None


def views_below(folder: Path) -> list[Path]:
    """The files of the views that a run keeps: as the teacher answered them, or as students read them."""
    return sorted(path for ending in (".npz", SUFFIX) for path in folder.rglob(f"*{ending}"))


def _require_rows(path: Path, *, digest: str, cache_root: Path | str) -> None:
    kept = open_view(path)
    if rows_of(kept).digest != digest:
        raise DistillError(f"{path} names other rows than it did")
    view = kept.view if isinstance(kept, NarrowedView) else rows_of(kept)
    storage = open_storage(cache_root, view.identity, create=False)
    cache = TeacherCache.open(cache_root, read_identity(storage), create=False)
    if not cache.holds(view):
        raise DistillError(f"rows of {path} have left the cache")


def _has_moved(directory: Path, source: ModelSource) -> bool:
    """Whether this is a snapshot of a hub's model, and a newer one of the same branch has been fetched since."""
    branch = directory.parent.parent / "refs" / (source.revision or "main")
    if source.hub is None or directory.parent.name != "snapshots" or not branch.is_file():
        return False
    return read_regular(branch, at_most=COMMIT_BYTES).strip() != directory.name.encode()


def _tasks(config: AnyExperiment) -> Iterator[tuple[str, Path]]:
    match config:
        case DistillConfig():
            yield from ((f"evaluation.tasks.{at}", path) for at, path in enumerate(config.evaluation.tasks or ()))
        case TaskDistillConfig():
            yield "task", config.task


def _files(config: AnyExperiment) -> Iterator[tuple[str, Path]]:
    match config:
        case DistillConfig():
            yield from _files_of_sequences(config)
        case TaskDistillConfig():
            for at, source in enumerate(config.data.transfer):
                if source.path is not None:
                    yield f"data.transfer.{at}.path", source.path
            yield from _plain_files(config.data.plain)
            yield from _blocklist(config.content)


def _files_of_sequences(config: DistillConfig) -> Iterator[tuple[str, Path]]:
    for split, source in config.data.splits.items():
        if source.path is not None:
            yield f"data.{split}.path", source.path
    yield from _plain_files(config.data.plain)
    yield from _blocklist(config.content)
    for name, student in config.students.items():
        for number, stage in enumerate(student.stages):
            if stage.pretrain is not None:
                yield f"students.{name}.stages.{number}.pretrain.path", stage.pretrain.path


def _blocklist(content: ContentConfig | None) -> Iterator[tuple[str, Path]]:
    if content is not None and content.blocklist is not None:
        yield "content.blocklist", content.blocklist


def _plain_files(plain: PlainConfig | None) -> Iterator[tuple[str, Path]]:
    for split in ("train", "dev") if plain is not None else ():
        path = getattr(plain, split).path
        if path is not None:
            yield f"data.plain.{split}.path", path


def _former_rollouts(config: AnyExperiment) -> Iterator[tuple[str, Path, int]]:
    if not isinstance(config, DistillConfig):
        return
    for name, student in config.students.items():
        for number, stage in enumerate(student.stages):
            if stage.rollout is not None and stage.rollout.replay_from is not None:
                key = f"students.{name}.stages.{number}.rollout.replay_from"
                yield key, stage.rollout.replay_from, stage.rollout.count


def _file(path: Path, *, config_dir: Path, digests: FileDigests) -> str:
    real = resolve_data_path(path, config_dir=config_dir)
    return digests.of([real])[real]


def _task(path: Path, *, config_dir: Path, digests: FileDigests) -> str:
    """SHA-256 (hex) over a task's file and the files of rows that it names."""
    real = resolve_data_path(path, config_dir=config_dir)
    data = load_task_file(real).data
    files = {split: source.path for split, source in data if source is not None and source.path is not None}
    rows = {split: _file(rows, config_dir=real.parent, digests=digests) for split, rows in files.items()}
    return digest_of(task=digests.of([real])[real], rows=rows)


def _local(path: Path, *, config_dir: Path, models_root: Path, say: Callable[[str], None]) -> str:
    return model_digest(resolve_data_path(path, config_dir=config_dir), models_root=models_root, say=say)


def _packaged(source: ModelSource, *, digests: FileDigests, models_root: Path) -> str:
    assert source.package is not None and source.file is not None
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        return UNUSABLE
    path = Path(spec.submodule_search_locations[0]) / source.file
    return model_digest(path, models_root=models_root) if path.is_dir() else digests.of([path])[path]


def _rollouts(path: Path, count: int, *, config_dir: Path) -> str:
    return RolloutExchange(resolve_data_path(path, config_dir=config_dir)).digest(count)


def _unless_unusable(digest: Callable[[], str]) -> str:
    try:
        return digest()
    except (OSError, DistillError, ImportError, KeyError, ValueError) as error:
        logger.info("without a digest: %s", error)
        return UNUSABLE
