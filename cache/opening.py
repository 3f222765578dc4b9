"""Opening the views that a run keeps in files: of one cache, of several, or as a student reads one that sees less."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cache import combined, narrowed
from cache.combined import CombinedCache, CombinedView
from cache.identity import Identity
from cache.narrowed import NarrowedCache, NarrowedView
from cache.protocols import RecordReader
from cache.store import TeacherCache
from cache.views import CacheView

AnyView = CacheView | CombinedView | NarrowedView


def open_view(path: Path) -> AnyView:
    """The view in a file, of whatever kind it is.

    Raises:
        CacheError: there is no sound view.
    """
    kinds: dict[str, type[CombinedView] | type[NarrowedView]] = {
        combined.SUFFIX: CombinedView,
        narrowed.SUFFIX: NarrowedView,
    }
    return kinds.get(path.suffix, CacheView).load(path)


def rows_of(view: AnyView) -> CacheView:
    """What stands for a view wherever only lengths, keys and a digest count."""
    return view if isinstance(view, CacheView) else view.rows


def cached_rows(view: AnyView) -> tuple[CacheView, ...]:
    """The rows of caches that a view is made of, one for each teacher."""
    if isinstance(view, CombinedView):
        return tuple(part.view for part in view.parts)
    return (view.view if isinstance(view, NarrowedView) else view,)


def reader_of(views: Sequence[AnyView], *, root: Path | str, identity: Identity) -> RecordReader:
    """What reads these views, and all views of the cache of `identity` below `root`.

    Raises:
        CacheError: there is no cache.
    """
    reader: RecordReader = TeacherCache.open(root, identity, create=False)
    spanning = [view for view in views if isinstance(view, CombinedView)]
    if spanning:
        reader = CombinedCache(root, spanning, otherwise=reader)
    shown_less = [view for view in views if isinstance(view, NarrowedView)]
    return NarrowedCache(reader, shown_less) if shown_less else reader


def open_rows(path: Path, *, root: Path | str, identity: Identity) -> tuple[CacheView, RecordReader]:
    """A view in a file, and what reads it.

    Raises:
        CacheError: there is no sound view, or no cache.
    """
    view = open_view(path)
    return rows_of(view), reader_of([view], root=root, identity=identity)
