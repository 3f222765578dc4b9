"""`distill serve` as a process of its own, with all that is real behind it, and tokens for whoever asks."""

from __future__ import annotations

import io
import socket
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from killed_drivers import DriverPlace, wait_for_line

from orchestration.commands.main import main


@dataclass(frozen=True)
class RealDoor:
    """A place, and the port of its door, which stays the same however often it is opened."""

    place: DriverPlace
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> subprocess.Popen[str]:
        """Start it, and wait until it lets in whoever may."""
        process = self.place.start(command="serve")
        wait_for_line(process, f"{self.url} is open")
        return process

    def token(self, name: str, *, scope: str = "ask") -> str:
        """A token made beside the door, which may be open."""
        run_root = f"runtime.run_root={self.place.root / 'runs'}"
        arguments = ["serve", "--config", str(self.place.config), "--set", run_root]
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(io.StringIO()):
            assert main([*arguments, "token", "new", name, "--scope", scope]) == 0
        return said.getvalue().strip()

    def written(self) -> str:
        """All that the door wrote into its logs."""
        logs = [path for path in (self.place.root / "runs/door-logs").rglob("*") if path.is_file()]
        return "\n".join(path.read_text(errors="replace") for path in logs)


def real_door(root: Path, config: Path, *changes: str) -> RealDoor:
    """The door of an experiment with these changes at a free port of loopback, not opened yet."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    root.mkdir(exist_ok=True)
    served = (f"runtime.serve.port={port}", "runtime.serve.commit_every_s=0.5")
    return RealDoor(DriverPlace(root, config, (*changes, *served)), port)
