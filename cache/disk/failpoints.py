"""Named places where a test may kill the process, to prove that no moment of a write is dangerous.

With `STILLROOM_FAILPOINT=<name>` in the environment the process kills itself (SIGKILL, no clean-up runs) when it
reaches that place. `FAILPOINTS` lists those of a segment's commit in the order they are passed, `REWRITE_FAILPOINTS`
those that come after it when rows move; other writers, such as checkpoints, name their own.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "STILLROOM_FAILPOINT"

FAILPOINTS = (
    "segment-after-staging",  # the staging directory and its owner.json exist, nothing is written yet
    "segment-after-arrays",  # every object is written and fsynced, in a directory still in staging
    "segment-after-rename",  # the segment stands under segments/, the directories not yet fsynced
    "segment-before-manifest",  # the keys stand beside where the manifest will, which is not yet there
    "segment-after-manifest",  # the manifest is linked: the segment counts; staging not yet removed
)

REWRITE_FAILPOINTS = (
    "rewrite-before-tombstones",  # the new segment counts, and so do those that it replaces
    "rewrite-before-delete",  # those that it replaces are marked as replaced, and still there
)


def failpoint(name: str) -> None:
    """Kill this process if the environment names this place."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
