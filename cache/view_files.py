"""The file of a view that is made of other views: combined, narrowed, retokenised.

It is one safetensors file: the views, arrays beside them, and in its header what is text, the digest of the whole among
it. Whoever reads it makes the view anew, which then has to have that digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cache.arrays import UNREADABLE, require_vector
from cache.disk.durable import replace_file
from cache.views import CacheView
from configs.errors import CacheError
from configs.regular_files import open_regular


@runtime_checkable
class Named(Protocol):
    """A view with a name for all of it."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that it holds."""
        ...


View = TypeVar("View", bound=Named)


@dataclass(frozen=True, slots=True)
class ViewFile:
    """What lies in the file of a view: the views that it is made of, arrays, and texts by name."""

    views: tuple[CacheView, ...]
    arrays: Mapping[str, NDArray[Any]]
    said: Mapping[str, str]

    def vectors(self, kinds: Mapping[str, DTypeLike]) -> dict[str, NDArray[Any]]:
        """Arrays of one dimension, by their names, each of the dtype that it has to have.

        Raises:
            KeyError: there is none of this name.
            TypeError: it has another dtype or another number of dimensions.
        """
        return {name: require_vector(self.arrays[name], name, kind) for name, kind in kinds.items()}


def save_view_file(path: Path, content: ViewFile, *, kind: str, digest: str) -> None:
    """Write a view of this kind; a reader sees all of it or nothing.

    Raises:
        CacheError: it cannot be written.
    """
    views = {_view(at): np.frombuffer(each.to_bytes(), dtype=np.uint8) for at, each in enumerate(content.views)}
    header = {"format": _format(kind), "digest": digest, "views": str(len(views)), **content.said}
    written = save({**views, **content.arrays}, metadata=header)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, written)
    except OSError as error:
        raise CacheError(f"{path}: the view cannot be written ({error.strerror}): check the run directory") from error


def load_view_file(path: Path, *, kind: str, make: Callable[[ViewFile], View]) -> View:
    """The view of this kind that was saved, which `make` makes of the file.

    Raises:
        CacheError: there is nothing, or it is not what was saved.
    """
    try:
        # A device or a FIFO would be read for ever.
        open_regular(path, links="follow").close()
        with safe_open(path, framework="numpy") as stored:
            header: Mapping[str, str] = stored.metadata() or {}
            if header.get("format") != _format(kind):
                raise CacheError(f"{path}: not a {kind} view of this version: delete it and run again")
            views = _views(stored, header, path=path)
            names = {_view(at) for at in range(len(views))}
            arrays = {name: stored.get_tensor(name) for name in stored.keys() if name not in names}  # noqa: SIM118
        found = make(ViewFile(views, arrays, header))
    except (*UNREADABLE, SafetensorError, IndexError) as error:
        raise CacheError(f"{path}: no {kind} view can be read there ({error}): run the fill again") from error
    if found.digest != header.get("digest"):
        raise CacheError(f"{path}: the {kind} view differs from its digest: delete it and run again")
    return found


def views_within(path: Path) -> tuple[CacheView, ...]:
    """The views that the file of a view is made of, or which it is, whatever its kind; none in any other file.

    Raises:
        CacheError: it is of a view and cannot be read.
    """
    if path.suffix == ".npz":
        return (CacheView.load(path),)
    try:
        open_regular(path, links="follow").close()
        with safe_open(path, framework="numpy") as stored:
            header: Mapping[str, str] = stored.metadata() or {}
            if not header.get("format", "").startswith("stillroom/") or "views" not in header:
                return ()
            return _views(stored, header, path=path)
    except (*UNREADABLE, SafetensorError, IndexError) as error:
        raise CacheError(f"{path}: no view can be read there ({error}): delete it") from error


def _views(stored: Any, header: Mapping[str, str], *, path: Path) -> tuple[CacheView, ...]:
    return tuple(
        CacheView.from_bytes(stored.get_tensor(_view(at)).tobytes(), name=f"{path}, view {at}")
        for at in range(int(header["views"]))
    )


def _view(at: int) -> str:
    return f"view{at}"


def _format(kind: str) -> str:
    return f"stillroom/{kind}/2"
