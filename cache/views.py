"""A view: which rows make up one split of one experiment, in which order.

A view names its rows by key, segment and row, so that reading it again gives the same bytes or an error, never other
rows. Its digest is the "cache digest" of a run. It is saved in the run directory as one npz file without pickles.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int32, Int64, UInt8
from numpy.typing import NDArray

from cache.canonical import canonical
from cache.durable import replace_file
from configs.errors import CacheError

FORMAT = 1

_COLUMNS = {"keys": "u1", "segment": "<i4", "row": "<i8", "prompt_len": "<i4", "lengths": "<i4", "finish": "u1"}

# What numpy and zipfile raise for a file whose bytes were changed or cut.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    NotImplementedError,
    RuntimeError,
    BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True, eq=False)
class CacheView:
    """The ordered rows of one dataset split.

    `segment[i]` is a position in `segments` (uuids). `lengths` counts prompt and response tokens; a row may be the
    prefix of a longer stored one. `finish` is a position in ("stop", "length", "given"). `k` is the number of
    log-probabilities that every row is read with; 0 reads text alone.
    """

    identity: str
    dataset: str
    k: int
    segments: tuple[str, ...]
    keys: UInt8[np.ndarray, "R 32"]
    segment: Int32[np.ndarray, " R"]
    row: Int64[np.ndarray, " R"]
    prompt_len: Int32[np.ndarray, " R"]
    lengths: Int32[np.ndarray, " R"]
    finish: UInt8[np.ndarray, " R"]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        parts = hashlib.sha256(
            canonical("stillroom/view/1", self.identity, self.dataset, self.k, len(self.segments), *self.segments)
        )
        for name, array in self._arrays().items():
            array.flags.writeable = False
            parts.update(canonical(name, hashlib.sha256(array.tobytes()).digest()))
        object.__setattr__(self, "digest", parts.hexdigest())

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Prompt and response tokens of all rows."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def response_tokens(self) -> int:
        """Response tokens of all rows."""
        return self.tokens - int(self.prompt_len.sum(dtype=np.int64))

    def save(self, path: Path) -> None:
        """Write the view; a reader sees all of it or nothing.

        Raises:
            CacheError: when the file cannot be written.
        """
        header = {"format": FORMAT, "identity": self.identity, "dataset": self.dataset, "k": self.k}
        text = json.dumps(header | {"segments": self.segments, "digest": self.digest}).encode()
        buffer = io.BytesIO()
        columns: dict[str, Any] = {"header": np.frombuffer(text, dtype=np.uint8), **self._arrays()}
        np.savez_compressed(buffer, allow_pickle=False, **columns)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, buffer.getvalue())
        except OSError as error:
            raise CacheError(
                f"{path}: the view cannot be written ({error.strerror}): check the run directory"
            ) from error

    @classmethod
    def load(cls, path: Path) -> CacheView:
        """Read a saved view.

        Raises:
            CacheError: when there is none, when it is of another format, or when it is not what was saved.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                header = json.loads(stored["header"].tobytes())
                if header["format"] != FORMAT:
                    raise CacheError(f"{path}: view of format {header['format']}, this version reads {FORMAT}: upgrade")
                columns = {name: stored[name].astype(kind, copy=False) for name, kind in _COLUMNS.items()}
                view = cls(
                    identity=header["identity"],
                    dataset=header["dataset"],
                    k=header["k"],
                    segments=tuple(header["segments"]),
                    **columns,
                )
        except FileNotFoundError as error:
            raise CacheError(f"{path}: no such view: run the fill of this experiment first") from error
        except _UNREADABLE as error:
            raise CacheError(f"{path}: not a sound view ({error}): delete it and run again") from error
        if view.digest != header["digest"]:
            raise CacheError(f"{path}: the view differs from its digest: delete it and run again")
        return view

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in _COLUMNS}
