"""Opening a run of any experiment: its directory held alone, its terminal and log, its tracker, its ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from configs import Experiment, configure_logging, dump_config
from configs.experiments import AnyExperiment
from configs.models import Device
from configs.places import RESOLVED, WRITTEN
from orchestration.fill.ledger import Ledger
from orchestration.inputs.preflight import require_cache, require_compiler, require_writable
from orchestration.lineage.records import Foundation, write_foundation
from orchestration.outputs.artifacts import Artifacts, claim_directory, sweep_run
from orchestration.outputs.console import Console
from orchestration.outputs.foundations import experiment_digest
from orchestration.outputs.redirect import terminal_kept
from orchestration.outputs.timeline import Timeline
from orchestration.pipeline.run import AnyWritten, Journal
from orchestration.pipeline.run_costs import counting
from orchestration.tracking.store import tracking_uri
from orchestration.tracking.tracker import Tracker, flatten, parent_run

PROBE_S = 15.0
"""A tracker that does not answer in this time is taken for slow; the first answer of a new SQLite file takes three."""


def require_places(config: AnyExperiment, *, accelerator: Device) -> None:
    """Refuse an experiment whose places cannot be used, before anything is begun.

    Raises:
        ConfigError: naming the key.
    """
    runtime = config.runtime
    require_compiler(accelerator)
    require_writable(runtime.run_root, key="runtime.run_root")
    require_cache(runtime.cache_root)
    require_writable(runtime.models_root, key="runtime.models_root")


@contextmanager
def opened_run(config: Experiment, directory: Path, *, written: AnyWritten) -> Iterator[tuple[Journal, Artifacts]]:
    """Hold a run directory for as long as the context lasts.

    `config` has its paths made real; `written` is the configuration as a person wrote it, with what the files hold that
    it names. All of it is kept there.

    Raises:
        ConfigError: another process holds it, or its tracker cannot be used.
    """
    runtime, log_file = config.runtime, directory / "logs" / "driver.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with (
        claim_directory(directory),
        terminal_kept(log_file) as terminal,
        counting(runtime) as costs,
        closing(Console(terminal, costs=costs, timeline=Timeline.of(directory))) as console,
        ExitStack() as opened,
    ):
        # Standard error goes to the log from here on, but warnings are for whoever watches.
        configure_logging(log_file, console=console.warnings)
        console.say(f"Experiment {config.name} in {directory} (logs in {directory / 'logs'})")
        (directory / WRITTEN).write_text(dump_config(written.config))
        (directory / RESOLVED).write_text(dump_config(config))
        write_foundation(
            Foundation(written.config.digest(), written.content),
            directory,
            experiment=experiment_digest(written.config, written.content),
        )
        artifacts = Artifacts(runtime.run_root, say=console.warn)
        tracker = opened.enter_context(closing(Tracker(directory, uri=tracking_uri(config))))
        journal = Journal(console, tracker, opened.enter_context(closing(Ledger.open(directory))))
        artifacts.sweep()
        sweep_run(directory)
        if runtime.tracking_uri is not None:
            tracker.require_usable(at_most_s=PROBE_S)
        try:
            yield journal, artifacts
        finally:
            journal.ledger.took(costs.meter.read().joules)


@contextmanager
def tracked_run(written: AnyWritten, directory: Path, *, tracker: Tracker, below: Path | None = None) -> Iterator[None]:
    """Keep the run in the tracker for as long as the context lasts.

    It ends there as finished, as failed, or as killed where a budget or the user ended it. `below` is the directory of
    the sweep that the experiment is a trial of.
    """
    config, name = written.config, directory.name
    params = flatten(config.model_dump(mode="json", exclude={"students"}, exclude_none=True))
    if config.runtime.tracking_uri is None:  # the default store is made only for a run that can begin
        tracker.require_usable(at_most_s=PROBE_S)
    tags = {"config_digest": config.digest(), "run_dir": name}
    with parent_run(tracker, name, params=params, tags=tags, below=below):
        yield
