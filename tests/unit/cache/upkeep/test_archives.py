from __future__ import annotations

import dataclasses
import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_builders import Members, assert_nothing_came, members, write
from rewriting_builders import DIGEST, everything, killed_at, names, put_each, requests_of, storage_of
from store_builders import TEACHER, flip_bit, open_cache, teacher_dir

from cache.disk.directory import kept_fingerprint, open_directory
from cache.disk.failpoints import FAILPOINTS
from cache.disk.object_storage import ObjectStorage
from cache.disk.owners import Owner
from cache.failures import Failures
from cache.identity import RemoteTeacherIdentity
from cache.store import TeacherCache
from cache.upkeep.archives import export_archive, import_archive
from cache.upkeep.rewriting import compact
from configs.errors import CacheError

PROMPTS = [5, 6, 7]


def export(root: Path, path: Path) -> Path:
    export_archive(storage_of(root), path, identity=DIGEST)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    put_each(tmp_path / "here", PROMPTS)
    return export(tmp_path / "here", tmp_path / "a.tar")


def test_what_could_not_be_answered_stays_where_it_was_asked(tmp_path: Path) -> None:
    put_each(tmp_path / "here", PROMPTS)
    (request, *_) = requests_of([9])
    Failures(storage_of(tmp_path / "here"), identity=DIGEST, engine={"vllm": "1"}).add({request: "too long"})
    import_archive(tmp_path / "there", export(tmp_path / "here", tmp_path / "b.tar"))
    assert not any(member.name.startswith("failures") for member, _ in members(tmp_path / "b.tar"))
    assert Failures(storage_of(tmp_path / "there"), identity=DIGEST, engine={"vllm": "1"}).reason(request) is None


def fingerprinted(root: Path, said: object) -> Path:
    """A cache whose teacher said this when it was first asked, and its archive."""
    put_each(root, PROMPTS)
    kept_fingerprint(storage_of(root), {"said": said})
    return export(root, root.parent / f"{root.name}.tar")


def test_what_the_teacher_said_first_goes_with_its_rows(tmp_path: Path) -> None:
    archive = fingerprinted(tmp_path / "here", 1)
    import_archive(tmp_path / "there", archive)
    # It counts there from now on, whatever is said by then.
    assert kept_fingerprint(storage_of(tmp_path / "there"), {"said": 2}) == {"said": 1}
    # The same again, and one of before there were any, are taken.
    import_archive(tmp_path / "there", archive)
    put_each(tmp_path / "old", [8])
    assert import_archive(tmp_path / "there", export(tmp_path / "old", tmp_path / "old.tar")).rows == 1


def test_rows_of_another_model_under_the_same_name_are_refused(tmp_path: Path) -> None:
    archive = fingerprinted(tmp_path / "here", 1)
    kept_fingerprint(open_directory(tmp_path / "there", TEACHER, create=True), {"said": 2})
    with pytest.raises(CacheError, match=r"another model under the same name .* \(they are not equal\)"):
        import_archive(tmp_path / "there", archive)
    assert_nothing_came(tmp_path / "there")
    # What is the same model, whoever reads it says.
    assert import_archive(tmp_path / "there", archive, differs=lambda here, there: None).rows == len(PROMPTS)


def test_a_fingerprint_that_is_none_is_refused(tmp_path: Path) -> None:
    archive = fingerprinted(tmp_path / "here", 1)
    content = [(item, b"{}" if item.name == "fingerprint.json" else data) for item, data in members(archive)]
    with pytest.raises(CacheError, match="not readable as what the teacher said first"):
        import_archive(tmp_path / "there", write(tmp_path / "bad.tar", content))
    assert_nothing_came(tmp_path / "there")


def test_an_archive_gives_the_same_answers_elsewhere(tmp_path: Path) -> None:
    records = put_each(tmp_path / "here", PROMPTS)
    compact(storage_of(tmp_path / "here"), identity=DIGEST)
    records += put_each(tmp_path / "here", [8])
    requests, keys = requests_of([*PROMPTS, 8]), [record.key for record in records]
    told: list[tuple[int, int]] = []
    report = export_archive(
        storage_of(tmp_path / "here"),
        tmp_path / "deep" / "a.tar",
        identity=DIGEST,
        progress=lambda *at: told.append(at),
    )
    assert (report.segments, report.rows, report.damaged) == (2, 4, ())
    assert report.bytes == (tmp_path / "deep" / "a.tar").stat().st_size
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.tar"]
    assert told[-1][0] == told[-1][1] > 0
    done = import_archive(tmp_path / "there", tmp_path / "deep" / "a.tar", progress=lambda *at: told.append(at))
    assert (done.identity, len(done.imported), done.skipped, done.rows) == (DIGEST, 2, (), 4)
    assert told[-1][0] == told[-1][1]
    here, there = open_cache(tmp_path / "here"), open_cache(tmp_path / "there")
    assert everything(there, requests, keys) == everything(here, requests, keys)
    assert there.verify() == []
    assert names(tmp_path / "there", "staging") == []
    again = import_archive(tmp_path / "there", tmp_path / "deep" / "a.tar")
    assert (again.imported, set(again.skipped)) == ((), set(done.imported))


def test_an_import_adds_to_what_is_there(tmp_path: Path, archive: Path) -> None:
    put_each(tmp_path / "there", [*PROMPTS[:1], 20])
    import_archive(tmp_path / "there", archive)
    assert open_cache(tmp_path / "there").stats().records == 4


def test_teachers_behind_an_api_travel_too(tmp_path: Path) -> None:
    teacher = RemoteTeacherIdentity(provider="p", model="m", revision="1")
    cache = TeacherCache.open(tmp_path / "here", teacher)
    export_archive(cache._library.storage, tmp_path / "a.tar", identity=teacher.digest())
    assert import_archive(tmp_path / "there", tmp_path / "a.tar").identity == teacher.digest()
    assert TeacherCache.open(tmp_path / "there", teacher, create=False).stats().records == 0


def test_damaged_segments_stay_behind(tmp_path: Path) -> None:
    put_each(tmp_path / "here", PROMPTS)
    one, two, three = names(tmp_path / "here", "segments")
    flip_bit(next((teacher_dir(tmp_path / "here") / "segments" / one / "topk_ids" / "c").rglob("0/0")))
    flip_bit(teacher_dir(tmp_path / "here") / "manifests" / f"{two}.json")
    report = export_archive(storage_of(tmp_path / "here"), tmp_path / "a.tar", identity=DIGEST)
    assert set(report.damaged) == {one, two}
    assert import_archive(tmp_path / "there", tmp_path / "a.tar").imported == (three,)


@pytest.mark.parametrize("folder", ["tombstones", "quarantine"])
def test_what_was_given_up_here_does_not_come_back(tmp_path: Path, archive: Path, folder: str) -> None:
    open_cache(tmp_path / "there")
    gone = names(tmp_path / "here", "segments")[0]
    storage_of(tmp_path / "there").create(f"{folder}/{gone}.json", b"{}")
    assert import_archive(tmp_path / "there", archive).skipped == (gone,)


@pytest.mark.parametrize("failpoint", FAILPOINTS[1:3])
def test_a_killed_import_is_finished_by_the_next(tmp_path: Path, archive: Path, failpoint: str) -> None:
    killed_at(failpoint, lambda: import_archive(tmp_path / "there", archive))
    assert_nothing_came(tmp_path / "there")
    assert len(import_archive(tmp_path / "there", archive).imported) == 3
    cache = open_cache(tmp_path / "there")
    assert (cache.stats().records, cache.verify()) == (3, [])
    assert names(tmp_path / "there", "staging") == []


def test_nobody_writes_a_segment_that_another_is_writing(tmp_path: Path, archive: Path) -> None:
    open_cache(tmp_path / "there")
    owner = storage_of(tmp_path / "there")
    name = names(tmp_path / "here", "segments")[0]
    owner.create(f"staging/{name}/owner.json", Owner.here().to_json())
    with pytest.raises(CacheError, match="another process"):
        import_archive(tmp_path / "there", archive)
    assert names(tmp_path / "there", "staging") == [name]


def test_an_import_into_an_object_store(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_COPIES", str(tmp_path / "copies"))
    teacher_dir(tmp_path / "there").mkdir(parents=True)
    url = f"file://localhost{tmp_path}/there"
    assert len(import_archive(url, archive).imported) == 3
    assert TeacherCache.open(url, TEACHER, create=False).stats().records == 3
    export_archive(ObjectStorage(f"{url}/{DIGEST}"), tmp_path / "b.tar", identity=DIGEST)
    again, first = members(tmp_path / "b.tar"), members(archive)
    # All but the manifests, which say when and how the segments came here.
    arrived = [member.name.startswith("manifests/") and member.name.endswith(".json") for member, _ in first]
    for known, (member, data), (other, original) in zip(arrived, again, first, strict=True):
        assert member.name == other.name
        if known:
            assert json.loads(data)["body"] == json.loads(original)["body"] | {"provenance": {"arrived": "import"}}
        else:
            assert data == original


def test_every_flipped_bit_is_noticed_or_means_nothing(tmp_path: Path, archive: Path) -> None:
    whole = archive.read_bytes()
    headers = [offset for member, _ in members(archive) for offset in (member.offset, member.offset + 100)]
    spots = [*headers, *range(0, len(whole), len(whole) // 30)]
    refused = 0
    for number, spot in enumerate(spots):
        changed = bytearray(whole)
        changed[spot] ^= 1 << number % 7
        archive.write_bytes(changed)
        root = tmp_path / f"there{number}"
        try:
            import_archive(root, archive)
        except CacheError:
            refused += 1
            assert_nothing_came(root)
        else:
            cache = open_cache(root)
            assert (cache.stats().records, cache.verify()) == (3, [])
    assert refused > len(headers)


def _named(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def _link(kind: bytes) -> Callable[[Members], Members]:
    def add(content: Members) -> Members:
        member = _named(content[1][0].name)
        member.type, member.linkname = kind, "/etc/passwd"
        return [content[0], (member, b""), *content[2:]]

    return add


def _with(name: str) -> Callable[[Members], Members]:
    return lambda content: [content[0], (_named(name), b"x"), *content[1:]]


def _without(name: str) -> Callable[[Members], Members]:
    return lambda content: [item for item in content if not item[0].name.startswith(name)]


def _grown(content: Members) -> Members:
    at = next(number for number, (member, _) in enumerate(content) if member.name.endswith("c/0/0"))
    content[at] = (content[at][0], content[at][1] + bytes(2**20))
    return content


def _identity(change: Callable[[dict], object]) -> Callable[[Members], Members]:
    def changed(content: Members) -> Members:
        note = json.loads(content[0][1])
        change(note)
        return [(content[0][0], json.dumps(note).encode()), *content[1:]]

    return changed


ODD = "segments/00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_link(tarfile.SYMTYPE), "not a regular file"),
        (_link(tarfile.LNKTYPE), "not a regular file"),
        (_link(tarfile.FIFOTYPE), "not a regular file"),
        (_link(tarfile.DIRTYPE), "not a regular file"),
        (_with("../../x"), "not a name that a cache has"),
        (_with("/etc/x"), "not a name that a cache has"),
        (_with(f"{ODD}/../../x"), "not a name that a cache has"),
        (_with(f"{ODD}/a//b"), "not a name that a cache has"),
        (_with(f"{ODD}/.hidden"), "not a name that a cache has"),
        (_with("staging/x/owner.json"), "not a name that a cache has"),
        (_with("manifests/x.json"), "not a name that a cache has"),
        (_with(f"{ODD}/extra"), "belongs to no segment"),
        (_with("identity.json"), "twice"),
        (_without("identity.json"), "identity.json is missing"),
        (_without("complete.json"), "cut short"),
        (_without("manifests/"), "is missing"),
        (_without("segments/"), "is missing"),
        (_grown, "more than the"),
        (_identity(lambda note: note.update(format=2)), "format 2"),
        (_identity(lambda note: note.pop("identity")), "names no teacher"),
        (_identity(lambda note: note.update(digest="0" * 64)), "not those of teacher"),
        (_identity(lambda note: note["identity"].update(dtype="float32")), "not those of teacher"),
        (_identity(lambda note: note["identity"].update(more=1)), "names no teacher"),
        (
            _identity(
                lambda note: note.update(
                    identity=dataclasses.asdict(dataclasses.replace(TEACHER, dtype="float32")),
                    digest=dataclasses.replace(TEACHER, dtype="float32").digest(),
                )
            ),
            "belongs to teacher",
        ),
    ],
)
def test_forged_archives_are_refused(
    tmp_path: Path, archive: Path, change: Callable[[Members], Members], reason: str
) -> None:
    forged = write(tmp_path / "forged.tar", change(members(archive)))
    with pytest.raises(CacheError, match=reason) as caught:
        import_archive(tmp_path / "there", forged)
    assert "forged.tar" in str(caught.value)
    assert_nothing_came(tmp_path / "there")


@pytest.mark.parametrize("nameless", [True, False])
def test_a_killed_export_leaves_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    put_each(tmp_path / "here", PROMPTS)
    (tmp_path / "out").mkdir()
    if not nameless:
        monkeypatch.setattr("cache.disk.durable._nameless", lambda _: None)

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        export_archive(
            storage_of(tmp_path / "here"), tmp_path / "out" / "a.tar", identity=DIGEST, progress=lambda *_: killed()
        )

    killed_at("", work)
    left = list((tmp_path / "out").iterdir())
    assert len(left) == (0 if nameless else 1)
    for path in left:
        os.utime(path, (0, 0))
    export(tmp_path / "here", tmp_path / "out" / "a.tar")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.tar"]
    assert len(import_archive(tmp_path / "there", tmp_path / "out" / "a.tar").imported) == 3


def test_an_export_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    put_each(tmp_path / "here", PROMPTS)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot be written"):
        export(tmp_path / "here", tmp_path / "file" / "a.tar")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CacheError, match="cannot be written"):
        export(tmp_path / "here", tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "here"]
