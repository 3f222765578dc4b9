"""The energy of this machine, counted by codecarbon without a network and without files.

Processors that tell what they take (RAPL), GPUs (NVML) and others are read; where a processor says nothing, codecarbon
estimates from its load and its thermal design power, and memory is always an estimate. `source` says which.

The tracker comes up in a thread, because importing it takes seconds: what a run takes before that is not counted. One
that cannot be had never stops a run: its numbers are not known then.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import Any

from orchestration.energy.readings import JOULES_PER_KWH, NOTHING, UNKNOWN, UNKNOWN_SOURCE, Reading

SAMPLE_S = 10.0
"""How often the tracker samples by itself; it also does whenever it is read."""

WORLD_G_PER_KWH = 475.0
"""Grams of CO2 equivalents a kilowatt-hour where no country is named: the world's average as codecarbon has it
(`data/private_infra/carbon_intensity_per_source.json`, `world_average`)."""

ESTIMATED = {"cpu_load": "estimated from load and thermal design power", "constant": "a constant, for want of better"}
"""How codecarbon's modes of a processor are called that measure nothing."""

logger = logging.getLogger(__name__)


class MachineMeter:
    """An `EnergyMeter` of this machine. `country` is the code of three letters (ISO 3166) whose electricity it is."""

    def __init__(self, *, country: str | None = None) -> None:
        self._country = country
        self._tracker: Any = None
        self._last: Any = None
        self._failed = self._closed = False
        self._lock = threading.Lock()
        self._starter = threading.Thread(target=self._start, name="energy", daemon=True)
        self._starter.start()

    @property
    def source(self) -> str:
        """How the numbers came about; empty when there are none."""
        tracker = self._tracker
        if tracker is None:
            return UNKNOWN_SOURCE
        parts = [_words(part) for part in tracker._conf.get("hardware", [])]
        grid = f"grid of {self._country}" if self._country else f"world average of {WORLD_G_PER_KWH:g} g CO2/kWh"
        return f"codecarbon {tracker._conf['codecarbon_version']} ({', '.join(sorted(parts))}; {grid})"

    def read(self) -> Reading:
        """What this machine took since the tracker came up; nothing before that, not known if it cannot."""
        if self._failed:
            return UNKNOWN
        if self._tracker is None:
            return NOTHING
        with self._lock:
            self._tracker.flush()
            if self._last is None:
                return NOTHING
            return Reading(self._last.energy_consumed * JOULES_PER_KWH, self._last.emissions)

    def wait(self) -> None:
        """Return when it measures, or cannot."""
        self._starter.join()

    def close(self) -> None:
        """Stop measuring. A tracker that is only coming up stops by itself."""
        self._closed = True
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.stop()

    def _start(self) -> None:
        try:
            tracker = _tracker(self._country, meter=self)
        except (ImportError, OSError, RuntimeError, ValueError, KeyError) as error:
            self._failed = True
            logger.warning("energy is not measured: codecarbon does not start (%s)", error)
            return
        if self._closed:
            tracker.stop()
        else:
            self._tracker = tracker

    def take(self, totals: Any) -> None:
        """Take note of the tracker's totals."""
        self._last = totals


def _tracker(country: str | None, *, meter: MachineMeter) -> Any:
    """A tracker that counts. Everything that its own configuration files could set to send or to write is set here."""
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.input import DataSource
    from codecarbon.output import BaseOutput

    # It talks of its own choices at length, before it can be told not to.
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)

    class Totals(BaseOutput):  # type: ignore[misc]  # its types are not followed
        def out(self, total: Any, delta: Any) -> None:
            meter.take(total)

    if country is not None and country not in DataSource().get_global_energy_mix_data():
        raise ValueError(f"runtime.energy_country={country} is not among the countries whose electricity it knows")
    intensity = {"force_carbon_intensity_g_co2e_kwh": WORLD_G_PER_KWH} if country is None else {}
    tracker = OfflineEmissionsTracker(
        country_iso_code=country or "USA",  # it wants one, and does not use it where the intensity is given
        tracking_mode="machine",
        measure_power_secs=SAMPLE_S,
        output_methods=[],
        output_handlers=[Totals()],
        emissions_endpoint="",
        electricitymaps_api_token="",
        allow_multiple_runs=True,
        log_level="critical",
        **intensity,
    )
    tracker.start()
    tracker.flush()
    if not math.isfinite(getattr(meter._last, "energy_consumed", math.nan)):
        raise RuntimeError("it gives no numbers")
    return tracker


def _words(hardware: str) -> str:
    """A part of the machine as codecarbon describes it, with how it is measured."""
    name, _, mode = hardware.partition("(")
    mode = mode.rstrip(")").strip()
    how = ESTIMATED.get(mode.lower().replace(" ", "_"), mode)
    return f"{name}: {how or 'estimated' if name == 'RAM' else how or 'measured'}"
