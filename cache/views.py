"""A view: which rows make up one split of one experiment, in which order.

A view names its rows by key and row id, so that reading it again gives the same bytes or an error, never other rows.
Its digest is the "cache digest" of a run. Where the rows stood when it was made is kept beside, and is not part of the
digest: rows move when segments are merged. A view is one npz file without pickles.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt64
from numpy.typing import NDArray

from cache.arrays import LARGEST, UNREADABLE, require_bounded
from cache.canonical import canonical
from cache.disk.durable import replace_file
from cache.keys import KEY_BYTES
from configs.errors import CacheError
from configs.regular_files import UnreadableFileError, parse_json, read_regular

VIEW_FORMAT = 2

_NAMED = {"keys": "u1", "row_ids": "<u8", "prompt_len": "<i4", "lengths": "<i4", "finish": "u1"}
_PLACED = {"segment": "<i4", "row": "<i8"}


@dataclass(frozen=True, slots=True, eq=False)
class CacheView:
    """The ordered rows of one dataset split.

    `segment[i]` is a position in `segments` (uuids), `row[i]` the row there and `row_ids[i]` what the row is called
    wherever it stands. `lengths` counts prompt and response tokens; a row may be the
    prefix of a longer stored one. `finish` is a position in ("stop", "length", "given"). `k` is the number of
    log-probabilities that every row is read with; 0 reads text alone. A view with `signals` names signals of one width
    each, which is its `k`, and no sequence.
    """

    identity: str
    dataset: str
    k: int
    segments: tuple[str, ...]
    keys: UInt8[np.ndarray, "R 32"]
    row_ids: UInt64[np.ndarray, " R"]
    segment: Int32[np.ndarray, " R"]
    row: Int64[np.ndarray, " R"]
    prompt_len: Int32[np.ndarray, " R"]
    lengths: Int32[np.ndarray, " R"]
    finish: UInt8[np.ndarray, " R"]
    signals: bool = False
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        parts = hashlib.sha256(canonical("stillroom/view/2", self.identity, self.dataset, self.k, *self._kind))
        for name, array in self._arrays(_NAMED).items():
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

    @property
    def _kind(self) -> tuple[str, ...]:
        """What is digested of the kind of its rows: nothing where they are sequences."""
        return ("signals",) if self.signals else ()

    def to_bytes(self) -> bytes:
        """The view as a file."""
        header = {"format": VIEW_FORMAT, "identity": self.identity, "dataset": self.dataset, "k": self.k}
        header |= {"segments": self.segments, "digest": self.digest, "places": self._places_digest()}
        header |= {"signals": True} if self.signals else {}
        text = json.dumps(header).encode()
        columns: dict[str, Any] = {"header": np.frombuffer(text, dtype=np.uint8)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **columns, **self._arrays(_NAMED | _PLACED))
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str) -> CacheView:
        """The view of a file, which errors call `name`.

        Raises:
            CacheError: when it is of another format, or not what was saved.
        """
        try:
            packed = io.BytesIO(data)
            require_bounded(packed)
            with np.load(packed, allow_pickle=False) as stored:
                header: Any = parse_json(stored["header"].tobytes(), origin=name)
                if header["format"] != VIEW_FORMAT:
                    raise CacheError(
                        f"{name}: view of format {header['format']}, this version reads {VIEW_FORMAT}: upgrade"
                    )
                columns = {
                    column: stored[column].astype(kind, copy=False) for column, kind in (_NAMED | _PLACED).items()
                }
                view = cls(
                    identity=header["identity"],
                    dataset=header["dataset"],
                    k=header["k"],
                    signals=header.get("signals") is True,
                    segments=tuple(header["segments"]),
                    **columns,
                )
                sound = view.digest == header["digest"] and view._places_digest() == header["places"]
                sound = sound and view._possible()
        except UNREADABLE as error:
            raise CacheError(f"{name}: not a sound view ({error}): delete it and run again") from error
        if not sound:
            raise CacheError(f"{name}: the view differs from its digest: delete it and run again")
        return view

    def save(self, path: Path) -> None:
        """Write the view; a reader sees all of it or nothing.

        Raises:
            CacheError: when the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, self.to_bytes())
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
            data = read_regular(path, at_most=LARGEST, links="follow")
        except FileNotFoundError as error:
            raise CacheError(f"{path}: no such view: run the fill of this experiment first") from error
        except UnreadableFileError as error:
            raise CacheError(f"{error}: delete it and run again") from error
        except OSError as error:
            raise CacheError(f"{path}: cannot be read ({error.strerror}): check the run directory") from error
        return cls.from_bytes(data, name=str(path))

    def _possible(self) -> bool:
        """Whether the arrays can be those of a view at all, whatever their digest."""
        count = len(self.lengths)
        arrays = self._arrays(_NAMED | _PLACED)
        shapes = all(
            array.shape == ((count, KEY_BYTES) if name == "keys" else (count,)) for name, array in arrays.items()
        )
        texts = all(isinstance(text, str) for text in (self.identity, self.dataset, *self.segments))
        if not (shapes and texts and type(self.k) is int and 0 <= self.k < 2**31):
            return False
        placed = (self.segment >= 0) & (self.segment < len(self.segments)) & (self.row >= 0)
        return bool((placed & (self.prompt_len > 0) & (self.prompt_len <= self.lengths) & (self.finish < 3)).all())

    def _places_digest(self) -> str:
        parts = hashlib.sha256(canonical("stillroom/places/1", len(self.segments), *self.segments))
        for array in self._arrays(_PLACED).values():
            parts.update(array.tobytes())
        return parts.hexdigest()

    def _arrays(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in names}
