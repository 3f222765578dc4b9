"""A sweep from its configuration to the best student: fill once, try side by side, compare the best on the test split.

A trial is an experiment of its own with a run directory, artifacts and claims. So whatever was finished is found again
by the next start, and a trial that fails is a line in the table.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from configs import DistillConfig, TrainingError, configure_logging, dump_config
from configs.places import WRITTEN
from configs.sweep import SweepConfig
from orchestration.outputs.artifacts import claim_directory, digest_of, write_json
from orchestration.outputs.console import Console, clock
from orchestration.outputs.foundations import content_of
from orchestration.outputs.kept import sealed
from orchestration.outputs.redirect import terminal_kept
from orchestration.sweeps.lane import Lane, LaneJob
from orchestration.sweeps.lanes import Lanes
from orchestration.sweeps.search import Search
from orchestration.sweeps.space import fill_config, require_space, trial_config
from orchestration.sweeps.summary import SWEEP, Summary, best_trial, in_words, lines, markdown, table
from orchestration.sweeps.trials import Outcome, Trial, TrialLog
from orchestration.tracking.store import tracking_uri
from orchestration.tracking.tracker import Point, Tracker, flatten, parent_run
from student_train.training.selection import CRITERIA

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """One sweep: its experiment as written, where that lies, and where the sweep keeps what it finds."""

    config: DistillConfig
    config_dir: Path
    sweep: SweepConfig
    directory: Path

    @property
    def metric(self) -> str:
        """What trials are judged by, by its tracking name."""
        return CRITERIA[self.sweep.minimise]


def run_sweep(
    config: DistillConfig,
    *,
    config_dir: Path,
    lanes_in: Callable[[Path], AbstractContextManager[Lanes]],
) -> Summary:
    """Run a sweep, or go on with it; prints what comes of it. `lanes_in` opens its lanes (`lanes.open_lanes`).

    Raises:
        ConfigError: the space cannot be searched.
        DistillError: the fill failed, every trial did, or the best could not be compared.
    """
    sweep = require_space(config)
    settings = SweepSettings(config, config_dir, sweep, _directory(config, config_dir=config_dir))
    settings.directory.mkdir(parents=True, exist_ok=True)
    log_file = settings.directory / "logs" / "sweep.log"
    log_file.parent.mkdir(exist_ok=True)
    with ExitStack() as opened:
        opened.enter_context(claim_directory(settings.directory))
        console = opened.enter_context(closing(Console(opened.enter_context(terminal_kept(log_file)))))
        # Standard error goes to the log from here on, but warnings are for whoever watches.
        configure_logging(log_file, console=console.warnings)
        tracker = opened.enter_context(closing(Tracker(settings.directory, uri=tracking_uri(config))))
        (settings.directory / WRITTEN).write_text(dump_config(config))
        lanes = opened.enter_context(lanes_in(settings.directory))
        with _parent_run(tracker, settings):
            return _Sweep(settings, console, tracker, lanes).run()


class _Sweep:
    """The stages of a sweep, in their order."""

    def __init__(self, settings: SweepSettings, console: Console, tracker: Tracker, lanes: Lanes) -> None:
        self._settings, self._console, self._tracker = settings, console, tracker
        self._lanes, self._address = lanes.each, lanes.address
        self._search = Search(settings.sweep)
        self._log = TrialLog(settings.directory / "trials.jsonl")

    def run(self) -> Summary:
        settings, console = self._settings, self._console
        console.say(f"Sweep {settings.config.name} in {settings.directory}: {self._search.trials} trials")
        left = self._take_up()
        fill_tokens = self._fill() if left else 0
        self._try(left)
        trials = tuple(self._log.trials[number] for number in sorted(self._log.trials))
        best = best_trial(trials, metric=settings.metric)
        if best is None:
            raise TrainingError(f"no trial was finished; see {settings.directory / 'logs'}")
        report = self._compare(best)
        summary = Summary(settings.config.name, settings.metric, trials, self._search.importance(), fill_tokens, report)
        self._publish(summary)
        return summary

    def _take_up(self) -> list[Trial]:
        """What an earlier start left: the search learns what was finished, the rest is tried (again) first."""
        known = self._log.trials
        for trial in known.values():
            score = trial.score(self._settings.metric)
            if score is not None:
                self._search.learn(trial.values, score)
        again = [trial for trial in known.values() if trial.score(self._settings.metric) is None]
        fresh = [number for number in range(self._search.trials) if number not in known]
        if known:
            self._console.say(f"{len(known) - len(again)} trials were finished before")
        return [*again, *(Trial(number, {}) for number in fresh)]

    def _fill(self) -> int:
        with self._console.stage("fill for all trials") as stage:
            answer = self._ask(fill_config(self._settings.config), until="fill")
            stage.summary = f"{answer.teacher_tokens:,} teacher tokens"
        return answer.teacher_tokens

    def _compare(self, best: Trial) -> str:
        with self._console.stage(f"the best on the test split (trial {best.number})") as stage:
            answer = self._ask(self._trial_config(best), until="eval")
            stage.summary = answer.directory
        return answer.directory

    def _ask(self, config: DistillConfig, *, until: str) -> Outcome:
        """Let the first lane run an experiment that everything else waits for.

        Raises:
            TrainingError: it failed.
        """
        lane = self._lanes[0]
        lane.begin(self._job(config, until=until))
        while (answer := lane.answer()) is None:
            time.sleep(POLL_S)
        if answer.failure:
            raise TrainingError(answer.failure)
        return answer

    def _try(self, left: Sequence[Trial]) -> None:
        """Try what is left, as many at a time as there are lanes."""
        waiting, running = list(left), dict[int, Trial]()
        with self._console.stage("trials", total=len(left), unit="trials") as stage:
            while waiting or running:
                for number, lane in enumerate(self._lanes):
                    if not lane.busy and waiting:
                        running[number] = self._begin(waiting.pop(0), lane=lane)
                    elif number in running and (outcome := lane.answer()) is not None:
                        self._end(running.pop(number), outcome)
                        stage.update(len(left) - len(waiting) - len(running))
                time.sleep(POLL_S)
            stage.summary = f"{len(left)} trials, {len(self._lanes)} at a time"

    def _begin(self, trial: Trial, *, lane: Lane) -> Trial:
        values = self._search.ask(trial.number, values=trial.values or None)
        begun = Trial(trial.number, values)
        self._log.write(begun)
        lane.begin(self._job(self._trial_config(begun), until="train"))
        return begun

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        ended = replace(trial, outcome=outcome)
        self._log.write(ended)
        score = ended.score(self._settings.metric)
        self._search.tell(trial.number, score)
        label = f"trial {trial.number} ({in_words(trial.values)})"
        if score is None:
            self._console.warn(f"{label} failed: {outcome.failure or f'it has no finite {self._settings.metric}'}")
            return
        self._console.say(
            f"  {label}: {self._settings.metric} {score:.4f}, {clock(outcome.seconds)} (workers ready after "
            f"{outcome.start_seconds:.1f} s), {outcome.teacher_tokens:,} teacher tokens"
        )
        self._tracker.log("pipeline", [Point("sweep/score", score, trial.number)])

    def _trial_config(self, trial: Trial) -> DistillConfig:
        config = self._settings.config
        return trial_config(config, trial.values, name=f"{config.name}-trial-{trial.number:03d}")

    def _job(self, config: DistillConfig, *, until: str) -> LaneJob:
        settings = self._settings
        if self._address is not None:
            runtime = config.runtime.model_copy(update={"ray_address": self._address})
            config = config.model_copy(update={"runtime": runtime})
        return LaneJob(
            config.model_dump_json(), str(settings.config_dir.absolute()), until, str(settings.directory.absolute())
        )

    def _publish(self, summary: Summary) -> None:
        directory, tracker = self._settings.directory, self._tracker
        (directory / "sweep.md").write_text(markdown(summary), encoding="utf-8", errors="backslashreplace")
        write_json(directory / "sweep.json", sealed(SWEEP, _digest(self._settings), asdict(summary)))
        tracker.log_final("pipeline", _final_metrics(summary))
        for name in ("sweep.md", "sweep.json", WRITTEN):
            tracker.artifact("pipeline", directory / name)
        self._console.say(table(summary))
        for line in lines(summary):
            self._console.say(line)
        self._console.say(
            f"The best is compared in {summary.report}; the sweep is in {directory} (sweep.md, sweep.json)."
        )


def _parent_run(tracker: Tracker, settings: SweepSettings) -> AbstractContextManager[None]:
    """The sweep's own run in MLflow; those of its trials stand below it."""
    name, said = settings.directory.name, settings.sweep.model_dump(mode="json", exclude_none=True)
    return parent_run(tracker, name, params=flatten(said), tags={"role": "sweep", "run_dir": name})


def _final_metrics(summary: Summary) -> dict[str, float]:
    score = summary.ranked[0][0]
    shares = {f"sweep/importance/{key}": share for key, share in summary.importance.items()}
    found = {"sweep/best": score, "sweep/teacher_tokens": float(summary.teacher_tokens), **shares}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _directory(config: DistillConfig, *, config_dir: Path) -> Path:
    content = content_of(config, config_dir=config_dir)
    assert config.sweep is not None
    said = config.sweep.model_dump(mode="json", exclude={"side_by_side"})
    digest = digest_of(config=config.digest(), content=content, sweep=said)
    name = config.name.removesuffix("-sweep")
    return config.runtime.run_root / f"{name}-sweep-{digest[:10]}"


def _digest(settings: SweepSettings) -> str:
    return settings.directory.name.rpartition("-")[2]
