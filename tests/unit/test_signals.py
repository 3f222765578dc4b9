"""The suite interrupts runs of its own, so it must not hand on that a shell had it ignore interrupts."""

from __future__ import annotations

import signal
import subprocess
import sys

SAY = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def test_what_tests_start_can_be_interrupted() -> None:
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    assert subprocess.check_output([sys.executable, "-c", SAY], text=True) == "True\n"
