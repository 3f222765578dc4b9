"""The error tree of Stillroom.

Everything a user can cause or cure is a `DistillError`: one line that names the key or the path, what is wrong and
the cure. The command line prints that line and exits with `exit_code`; anything else is a defect and shows a
traceback. All of them pickle, because they cross process boundaries under Ray.
"""

from __future__ import annotations


class DistillError(Exception):
    """Base of all errors that a user can read and act upon."""

    exit_code = 1


class ConfigError(DistillError, ValueError):
    """The configuration, a path it names or the machine it is run on cannot work. Nothing was started."""

    exit_code = 2


class DataError(DistillError, ValueError):
    """The prompt data cannot be used: no rows, a missing field, splits that overlap."""

    exit_code = 2


class ModelError(DistillError, ValueError):
    """A model cannot be found, loaded or used together with another one."""

    exit_code = 2


class CacheError(DistillError):
    """The teacher cache cannot be opened, read or written."""


class RecordError(CacheError, ValueError):
    """A teacher record breaks the rules of a record and was not written."""


class EngineError(DistillError):
    """An inference engine failed its start-up check or died."""


class DoorError(DistillError):
    """The door of a shared teacher cannot be reached, lets nobody in, or does not answer as it must."""


class TrainingError(DistillError):
    """A student could not be trained (non-finite loss, lost worker)."""


class BudgetReached(DistillError):
    """A budget stopped the fill; everything finished so far is committed and a rerun goes on from there."""

    exit_code = 3
