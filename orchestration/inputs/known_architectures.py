"""What a model's `config.json` was found to mean, remembered: to learn it anew takes transformers four seconds.

Only transformers knows what a file leaves out (docs/decisions/0019-one-reader.md), and it loads torch with whatever is
installed around it for any architecture. What it said of these very bytes in this very version stands in a file of the
models root, so who plans again need not wait. A file that names others to read in its place is not remembered.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cache.disk.durable import replace_file
from configs.architecture import Architecture, read_architecture
from configs.model_files import CONFIG, read_config
from configs.regular_files import UnreadableFileError, read_json, read_regular

FORMAT = "stillroom/architectures/1"
MOST = 1000
"""Files that are remembered; of more, those that were read longest ago are forgotten."""

FILE_BYTES = 16 * 2**20
_ARCHITECTURE = TypeAdapter(Architecture)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownArchitectures:
    """What files were found to mean, in a file of its own."""

    memo: Path

    def of(self, model_dir: Path) -> Architecture:
        """What a model is built like; see `read_architecture`.

        Raises:
            ModelError: see there.
        """
        if "configuration_files" in read_config(model_dir):
            return read_architecture(model_dir)
        content = read_regular(model_dir / CONFIG, at_most=FILE_BYTES, links="follow")
        key = hashlib.sha256(f"transformers {version('transformers')}\n".encode() + content).hexdigest()
        known = self._read()
        try:
            return _ARCHITECTURE.validate_python(known[key])
        except (KeyError, ValidationError):
            found = read_architecture(model_dir)
        self._write({**known, key: _ARCHITECTURE.dump_python(found, mode="json")})
        return found

    def _read(self) -> dict[str, object]:
        try:
            held = read_json(self.memo, at_most=FILE_BYTES)
        except (OSError, UnreadableFileError):
            return {}
        files = held.get("files") if isinstance(held, dict) and held.get("format") == FORMAT else None
        return dict(files) if isinstance(files, dict) else {}

    def _write(self, files: Mapping[str, object]) -> None:
        kept = dict([*files.items()][-MOST:])
        try:
            self.memo.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.memo, json.dumps({"format": FORMAT, "files": kept}).encode())
        except OSError as error:
            # Nothing but time is lost.
            logger.info("%s cannot be written (%s): config.json is read again next time", self.memo, error.strerror)
