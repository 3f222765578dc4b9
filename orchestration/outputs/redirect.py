"""Send a process's output to a file at the level of file descriptors, so that C++ and child processes go there too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from configs.regular_files import open_own
from orchestration.outputs.lasting import lasting_stream


def redirect_output(path: Path) -> None:
    """Send everything that this process prints from now on to `path`.

    Raises:
        UnreadableFileError: something that is not a regular file lies there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_own(path, flags=os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


@contextmanager
def terminal_kept(path: Path) -> Iterator[TextIOWrapper]:
    """Redirect to `path` for a while; yields the terminal (or pipe) that stdout was before, for our own lines.

    Should it be closed meanwhile, these lines are dropped.
    """
    terminal = lasting_stream(os.dup(1))
    errors = os.dup(2)
    redirect_output(path)
    try:
        yield terminal
    finally:
        terminal.flush()
        os.dup2(terminal.fileno(), 1)
        os.dup2(errors, 2)
        os.close(errors)
        terminal.close()
