"""No byte of an object is seen before it was compared with the manifest; only the second difference is damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import DamagedObject, ObjectInfo
from cache.disk.verified import ABSENT, read_verified

NAME = "segments/s/x/c/0"


class Reading(LocalStorage):
    """Gives these answers, one after the other, and notes when its copies are dropped."""

    def __init__(self, root: Path, *answers: bytes) -> None:
        super().__init__(root)
        self.answers, self.forgotten = list(answers), 0

    def fetch(self, name: str, *, at_most: int) -> bytes:
        return self.answers.pop(0) if self.answers else super().fetch(name, at_most=at_most)

    def forget_copy(self, name: str) -> None:
        self.forgotten += 1


def test_a_sound_object_is_read_once(tmp_path: Path) -> None:
    storage = Reading(tmp_path, b"sound")
    assert read_verified(storage, NAME, ObjectInfo.of(b"sound"), segment="s") == b"sound"
    assert (storage.answers, storage.forgotten) == ([], 0)


def test_a_difference_that_is_gone_the_second_time_was_none(tmp_path: Path) -> None:
    storage = Reading(tmp_path, b"saund", b"sound")
    assert read_verified(storage, NAME, ObjectInfo.of(b"sound"), segment="s") == b"sound"
    assert storage.forgotten == 1


@pytest.mark.parametrize(
    ("found", "reason"), [(b"saund", "SHA-256 differs from the manifest"), (b"soun", "4 bytes instead of 5")]
)
def test_a_difference_that_stays_names_the_object(found: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedObject) as caught:
        read_verified(Reading(tmp_path, found, found), NAME, ObjectInfo.of(b"sound"), segment="s")
    assert (caught.value.segment, caught.value.name, caught.value.reason) == ("s", "x/c/0", reason)


def test_what_is_missing_is_not_looked_for_twice(tmp_path: Path) -> None:
    storage = Reading(tmp_path)
    with pytest.raises(DamagedObject) as caught:
        read_verified(storage, NAME, ObjectInfo.of(b"sound"), segment="s")
    assert (caught.value.reason, storage.forgotten) == (ABSENT, 0)


def test_a_disk_that_fails_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(LocalStorage, "fetch", fail)
    with pytest.raises(OSError, match="Input/output") as caught:
        read_verified(Reading(tmp_path), NAME, ObjectInfo.of(b"sound"), segment="s")
    assert not isinstance(caught.value, DamagedObject)
