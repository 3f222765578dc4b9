"""What stands behind a run: its configuration and data, what was learned, the cache that it came from, the teachers."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping
from pathlib import Path

from cache import TeacherCache
from cache.disk.directory import read_identity
from cache.disk.roots import open_storage
from cache.fingerprint import fingerprint_model
from cache.identity import Identity, TeacherIdentity
from cache.opening import cached_rows, open_view, rows_of
from cache.views import CacheView
from configs import DistillError, Experiment, load_experiment
from configs.places import RESOLVED, SUMMARY, WRITTEN
from configs.teachers import NOT_STATED
from configs.visible_text import first_line, visible
from orchestration.inputs.model_papers import licence_of_model
from orchestration.inputs.models import is_at_hand, locate_model
from orchestration.lineage.records import read_foundation
from orchestration.lineage.steps import SHOWN, Step, compared
from orchestration.outputs.foundations import content_of, experiment_digest, model_sources
from student_train.feed.examples import ExampleSet

LESSONS = "lessons"
"""The folder of a run directory with examples; all other files that were learned from are views."""


def behind_run(run: Path, *, learned: Mapping[str, str], wanted: Collection[str]) -> Iterator[Step]:
    """The steps behind a run directory. `learned` are digests by files in it, `wanted` those that the student names."""
    if not run.is_dir():
        yield Step("run", "missing", f"{run} is not here: neither data nor what the teacher said can be followed")
        return
    config = yield from _configuration(run)
    if not set(wanted) <= set(learned.values()):
        yield Step("learned", "broken", "the student's address names other rows than those that are said to be learned")
    rows: list[CacheView] = []
    for name, digest in learned.items():
        yield from _learned(run, name, digest=digest, rows=rows)
    if config is not None:
        yield from _caches(config, rows, run=run)
        yield from _guard(config)


def _configuration(run: Path) -> Generator[Step, None, Experiment | None]:
    """The configuration and the files that it names, against what the run is named by; gives it with real paths."""
    try:
        foundation = read_foundation(run)
        written, config = load_experiment(run / WRITTEN), load_experiment(run / RESOLVED)
    except DistillError as error:
        yield Step("run", "broken", first_line(error))
        return None
    if foundation is None:
        yield Step("run", "missing", f"{run}: an earlier version ran it and did not write down what it rests on")
        return config
    if written.digest() != foundation.config:
        yield Step("run", "broken", f"{run / WRITTEN} is not the configuration that ran")
    elif not experiment_digest(written, foundation.content).startswith(run.name.rpartition("-")[2]):
        yield Step("run", "broken", f"{run} is not named by what it says that it rests on")
    else:
        yield Step("run", "holds", f"{run} is named by its configuration, and by what that names:")
    now = content_of(config, config_dir=run)
    for key, digest in foundation.content.items():
        yield compared("named", key, found=now.get(key, "nothing"), wanted=digest)
    return config


def _learned(run: Path, name: str, *, digest: str, rows: list[CacheView]) -> Iterator[Step]:
    """A view, or the examples of a lesson; rows of caches are put into `rows`."""
    path = run / name
    if not path.is_file():
        yield Step("learned", "missing", f"{path} is not here")
        return
    try:
        if path.parent.name == LESSONS:
            found = ExampleSet.load(path).digest
        else:
            view = open_view(path)
            found = rows_of(view).digest
            rows += cached_rows(view)
    except DistillError as error:
        yield Step("learned", "broken", first_line(error))
        return
    yield compared("learned", name, found=found, wanted=digest)


def _caches(config: Experiment, rows: list[CacheView], *, run: Path) -> Iterator[Step]:
    """The cache of every teacher that rows are of, all its segments read, and the teacher's own files."""
    root = config.runtime.cache_root
    for digest in dict.fromkeys(view.identity for view in rows):
        try:
            storage = open_storage(root, digest, create=False)
            identity = read_identity(storage)
            cache = TeacherCache.open(root, identity, create=False)
            checked = list(cache.verify_segments())
        except (DistillError, OSError) as error:
            yield Step("cache", "missing", first_line(error))
            continue
        size, damaged = sum(count for count, _ in checked), [damage for _, broken in checked for damage in broken]
        lost = [view.dataset for view in rows if view.identity == digest and not cache.holds(view)]
        for damage in damaged:
            yield Step("cache", "broken", f"{storage.place}: {damage}")
        if lost:
            yield Step("cache", "broken", f"{storage.place}: rows of {', '.join(lost)} have left it")
        if not damaged and not lost:
            yield Step("cache", "holds", f"{storage.place}: {len(checked)} segments, {size / 1e6:,.1f} MB")
        yield _teacher(identity, config, run=run)


def _teacher(identity: Identity, config: Experiment, *, run: Path) -> Step:
    """The files of the teacher that answered, if any model here has its weights."""
    if not isinstance(identity, TeacherIdentity):
        return Step("teacher", "said", f"{identity.model} of {identity.provider}, whose weights nobody can hash")
    for folder in _models(config, run=run):
        try:
            prints = fingerprint_model(folder)
        except (DistillError, OSError):
            continue  # It is named by the step of its own.
        if (prints.weights_sha256, prints.config_sha256) == (identity.weights_sha256, identity.config_sha256):
            return Step("teacher", "holds", f"{folder}: weights {prints.weights_sha256[:SHOWN]}, {identity.dtype}")
    gone = f"no model here has the weights {identity.weights_sha256[:SHOWN]}"
    return Step("teacher", "missing", f"{gone} that answered: they were changed or moved, or are of another machine")


def _guard(config: Experiment) -> Iterator[Step]:
    """Who judged what was learned, where a model did; it taught nobody."""
    guard = None if config.content is None else config.content.guard
    if guard is None:
        return
    licence = guard.licence or licence_of_model(guard.model, models_root=config.runtime.models_root, fetch=False)
    said = f"{guard.model.label}, licence {visible(licence or NOT_STATED)}"
    yield Step("guard", "said", f"{said}: it judged what was learned and taught nobody")


def _models(config: Experiment, *, run: Path) -> Iterator[Path]:
    """Whoever may have answered: the models that the configuration names, then students that teach others."""
    for _, source in model_sources(config):
        if is_at_hand(source):
            yield locate_model(source, models_root=config.runtime.models_root)
    yield from (path.parent for path in sorted(run.parent.glob(f"students/*/{SUMMARY}")))
