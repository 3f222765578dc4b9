"""Teachers of a cache: listed, chosen by the beginning of an identity, checked one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache import GenerateRequest, TeacherCache, TeacherIdentity
from configs import CacheError, ConfigError
from orchestration.cache_tools.actions import CachedTeacher, each, select, select_one, teachers, verify
from teacher_server import FakeTeacher

IDENTITIES = [TeacherIdentity(weights_sha256=letter * 64, config_sha256="c" * 64) for letter in "ab"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for identity in IDENTITIES:
        request = GenerateRequest((3, 4), (2,), max_new_tokens=6)
        ((_, record),) = FakeTeacher(identity, vocab=64, eos_id=2).generate([request], k=4)
        TeacherCache.open(tmp_path / "cache", identity).put([(record, request)], vocab=64)  # type: ignore[list-item]
    return tmp_path / "cache"


def listed(root: Path) -> list[CachedTeacher]:
    return teachers(root, left_out=pytest.fail)


def test_every_teacher_is_found_by_its_identity(root: Path) -> None:
    assert {teacher.digest for teacher in listed(root)} == {identity.digest() for identity in IDENTITIES}
    assert {teacher.root for teacher in listed(root)} == {root}


def test_a_teacher_in_the_place_of_another_is_left_out(root: Path) -> None:
    one, other = (identity.digest() for identity in IDENTITIES)
    (root / one / "identity.json").write_bytes((root / other / "identity.json").read_bytes())
    said: list[str] = []
    assert [teacher.digest for teacher in teachers(root, left_out=said.append)] == [other]
    assert said == [f"{root / one}: it says that it holds teacher {other}: move it back"]


def test_without_a_cache_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a directory: name the cache that runtime\.cache_root points to"):
        listed(tmp_path / "nowhere")


def test_all_are_meant_where_none_is_named(root: Path) -> None:
    found = listed(root)
    assert select(found, None, root=root) == found
    assert select(found, found[1].digest[:6].upper(), root=root) == [found[1]]


@pytest.mark.parametrize("prefix", ["ffffff", ""])
def test_a_beginning_of_nobody_names_who_is_there(prefix: str, root: Path) -> None:
    found = listed(root)
    known = ", ".join(teacher.digest[:12] for teacher in found)
    with pytest.raises(ConfigError) as refused:
        select(found, prefix, root=root)
    assert str(refused.value).endswith(f"begins with {prefix}: name 4 or more digits; there are {known}")


def test_one_teacher_has_to_be_the_only_one(root: Path) -> None:
    (first, *_) = found = listed(root)
    assert select_one(found, first.digest[:8], root=root) == first
    with pytest.raises(
        ConfigError, match=f"^2 teachers in {root} begin with {first.digest[:4]}: .*; name more digits$"
    ):
        select_one([first, first], first.digest[:4], root=root)


def test_one_that_fails_does_not_keep_the_others_from_their_turn() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise CacheError("two is broken")
        return 10 * number

    said: list[str] = []
    assert each([1, 2, 3], work, left_out=said.append) == [10, 30]
    assert said == ["two is broken"]


@pytest.mark.parametrize("deep", [False, True])
def test_every_byte_is_counted_while_it_is_checked(deep: bool, root: Path) -> None:
    told: list[float] = []
    found = verify(listed(root), deep=deep, left_out=pytest.fail, progress=told.append)
    assert [(result.segments, result.damaged) for result in found] == [(1, ()), (1, ())]
    assert told == sorted(told) and told[-1] == pytest.approx(sum(result.bytes for result in found) / 1e6)
    assert all(result.bytes > 0 for result in found)
