"""What every commit promises, whatever its rows are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from signal_builders import ask, respond
from store_builders import VOCAB, make_record, open_cache, teacher_dir

from cache.committing import Writer
from cache.disk.owners import Owner
from cache.disk.spending import Spent
from cache.store import TeacherCache
from configs.errors import CacheError

Pending = Callable[[TeacherCache], tuple[Writer, Callable[[], bool]]]
"""Opens a writer with one row of four tokens in it; the second value asks whether the row is held."""


def one_sequence(cache: TeacherCache) -> tuple[Writer, Callable[[], bool]]:
    record, writer = make_record([3, 4, 5, 6], prompt_len=2), cache.writer(vocab=VOCAB)
    writer.add(record)
    return writer, lambda: cache.get_many([record.key])[0] is not None


def one_signal(cache: TeacherCache) -> tuple[Writer, Callable[[], bool]]:
    record, writer = respond(ask([3, 4, 5, 6])), cache.signals.writer()
    writer.add(record)
    return writer, lambda: cache.signals.get_many([record.key])[0] is not None


pytestmark = pytest.mark.parametrize("pending", [one_sequence, one_signal])


def test_an_exception_leaves_nothing(tmp_path: Path, pending: Pending) -> None:
    writer, held = pending(open_cache(tmp_path))
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt
    for folder in ("staging", "segments", "manifests"):
        assert list((teacher_dir(tmp_path) / folder).iterdir()) == []
    assert not held() and writer.commit() is None


def test_while_it_writes_the_owner_is_named(tmp_path: Path, pending: Pending) -> None:
    writer, held = pending(open_cache(tmp_path))
    with writer:
        (owner,) = (teacher_dir(tmp_path) / "staging").glob("*/owner.json")
        named = Owner.from_json(owner.read_bytes())
        assert named is not None
        assert named.pid == os.getpid()
        assert not named.gone(silent_s=600.0)
    assert list((teacher_dir(tmp_path) / "staging").iterdir()) == []
    assert held()


def test_a_full_disk_keeps_the_rows_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pending: Pending) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer, held = pending(open_cache(tmp_path))
    with writer:
        with monkeypatch.context() as patch:
            patch.setattr("cache.disk.local_storage.write_tree", full)
            with pytest.raises(CacheError, match=r"No space left.*free space"):
                writer.commit()
        assert (writer.pending_rows, held()) == (1, False)
    assert held()


def test_what_waited_long_enough_or_is_much_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pending: Pending
) -> None:
    writer, _ = pending(open_cache(tmp_path))
    clock = [time.monotonic()]
    monkeypatch.setattr("cache.committing.time.monotonic", lambda: clock[0])
    assert not writer.due(30.0) and writer.due(30.0, max_rows=1)
    clock[0] += 31.0
    assert writer.due(30.0)
    report = writer.commit(Spent(seconds=1.5))
    assert report is not None and (report.rows, report.tokens) == (1, 4)
    assert not writer.due(0.0) and (writer.pending_rows, writer.pending_tokens) == (0, 0)
    (manifest,) = open_cache(tmp_path)._library.manifests
    assert (manifest.uuid, manifest.provenance["spent_seconds"]) == (report.uuid, "1.5")
