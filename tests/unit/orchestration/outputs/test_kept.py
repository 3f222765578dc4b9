"""What is kept is used again only while it is what was written: cut, edited, swapped, added to, of another version."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.places import SUMMARY
from orchestration.outputs import kept
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.kept import FileDigests, OutdatedError, file_sha256, read_sealed, sealed

DIGEST, OTHER = "ab" * 32, "cd" * 32
NUMBERS: dict[str, object] = {"forward_kl": 0.1 + 0.2, "answers": ["ä", "\n"], "stderr": float("inf")}
WEIGHTS = bytes(range(256)) * 40


@dataclass(frozen=True, slots=True)
class Numbers:
    """An evaluation."""

    forward_kl: float
    answers: tuple[str, ...]
    stderr: float
    digest: str


WRITTEN = Numbers(0.1 + 0.2, ("ä", "\n"), float("inf"), DIGEST)


class Place:
    """A run root, and what it says to a person."""

    def __init__(self, root: Path) -> None:
        self.said: list[str] = []
        self.artifacts = Artifacts(root, say=self.said.append)

    def student(self) -> Path:
        folder = self.artifacts.student_dir(DIGEST)
        (folder / "onnx").mkdir(parents=True)
        for name in ("model.safetensors", "onnx/weights.bin"):
            (folder / name).write_bytes(WEIGHTS)
        for name in ("config.json", "tokenizer.json", "curves.jsonl", "README.md"):
            (folder / name).write_text(name)
        self.artifacts.keep_student(DIGEST, {"selected_step": 3})
        return folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "runs")


def flip(path: Path, at: int = 100) -> None:
    """Flip one bit, and give the file its old times back."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_finished_student_says_what_was_said_of_it(place: Place) -> None:
    assert place.artifacts.read_student(DIGEST) is None
    place.student()
    assert place.artifacts.read_student(DIGEST) == {"selected_step": 3}
    assert place.artifacts.read_student(OTHER) is None
    assert place.said == []


def summary_of_another(folder: Path) -> None:
    """A killed stage that starts from this student: everything was copied along, and other weights stand beside it."""
    summary = json.loads((folder / SUMMARY).read_text())
    fields = {name: value for name, value in summary.items() if name not in ("schema", "digest", "sha256")}
    (folder / SUMMARY).write_text(json.dumps(sealed(summary["schema"], OTHER, fields)))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped weights": (lambda folder: flip(folder / "model.safetensors"), r"model\.safetensors: was edited or dam"),
    "flipped in a folder": (lambda folder: flip(folder / "onnx/weights.bin"), r"weights\.bin: was edited or damaged"),
    "cut weights": (lambda folder: os.truncate(folder / "model.safetensors", 9), r"has 9 bytes and not the 10,240"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors: is missing"),
    "a folder of that name": (
        lambda folder: ((folder / "config.json").unlink(), (folder / "config.json").mkdir()),
        r"config\.json: is missing",
    ),
    "edited config": (lambda folder: (folder / "config.json").write_text("c0nfig.json"), r"config\.json: was edited"),
    "cut curve": (lambda folder: os.truncate(folder / "curves.jsonl", 3), r"curves\.jsonl: has 3 bytes"),
    "a second weight file": (
        lambda folder: (folder / "consolidated.safetensors").write_bytes(b"x"),
        r"consolidated\.safetensors: was added, and changes what is loaded",
    ),
    "an adapter": (lambda folder: (folder / "adapter_config.json").write_text("{}"), r"adapter_config\.json: was add"),
    "edited summary": (
        lambda folder: (folder / SUMMARY).write_text((folder / SUMMARY).read_text().replace("3", "4")),
        r"stillroom\.json: was edited or damaged",
    ),
    "cut summary": (lambda folder: os.truncate(folder / SUMMARY, 40), r"stillroom\.json: not valid JSON"),
    "empty summary": (lambda folder: os.truncate(folder / SUMMARY, 0), r"stillroom\.json: not valid JSON"),
    "summary of another kind": (lambda folder: (folder / SUMMARY).write_text("[]"), "is not a JSON object"),
    "summary of an older version": (
        lambda folder: (folder / SUMMARY).write_text(json.dumps({"digest": DIGEST, "steps": 4})),
        r"was written by another version \(no schema, this one has stillroom/student/2\)",
    ),
    "summary of another student": (summary_of_another, "belongs to cdcdcdcdcdcdcdcd, not to abababababababab"),
    "a summary that never ends": (
        lambda folder: ((folder / SUMMARY).unlink(), (folder / SUMMARY).symlink_to("/dev/zero")),
        "is a symbolic link, not a regular file",
    ),
    "a summary that waits": (
        lambda folder: ((folder / SUMMARY).unlink(), os.mkfifo(folder / SUMMARY)),
        "is a named pipe, not a regular file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("remembered", [False, True], ids=["new", "remembered"])
def test_a_damaged_student_is_named_and_counts_as_absent(damage: str, remembered: bool, place: Place) -> None:
    folder = place.student()
    if remembered:
        assert place.artifacts.read_student(DIGEST) is not None
    hurt, reason = DAMAGES[damage]
    hurt(folder)
    assert place.artifacts.read_student(DIGEST) is None
    assert place.artifacts.read_student(DIGEST) is None
    (said,) = place.said
    assert said.endswith(": it is made anew") and str(folder) in said
    with pytest.raises(OutdatedError, match=reason):
        kept.read_directory(folder, schema="stillroom/student/2", digest=DIGEST, digests=place.artifacts.digests)


def test_a_card_may_be_written_on_and_a_copy_in_another_format_added(place: Place) -> None:
    folder = place.student()
    (folder / "README.md").write_text("My student")
    (folder / "student-q4.gguf").write_bytes(b"GGUF")
    (folder / ".cache").touch()
    assert place.artifacts.read_student(DIGEST) is not None
    shutil.move(folder, folder.with_name("elsewhere"))
    assert place.artifacts.read_student(DIGEST) is None
    shutil.copytree(folder.with_name("elsewhere"), folder)
    assert place.artifacts.read_student(DIGEST) is not None
    assert place.said == []


def test_a_start_is_not_taken_for_a_student(place: Place) -> None:
    folder = place.artifacts.init_dir(DIGEST)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    assert not place.artifacts.has_start(DIGEST)
    place.artifacts.keep_start(DIGEST, {})
    assert place.artifacts.has_start(DIGEST)
    shutil.copytree(folder, place.artifacts.student_dir(DIGEST))
    assert place.artifacts.read_student(DIGEST) is None
    flip(folder / "model.safetensors")
    assert not place.artifacts.has_start(DIGEST)


def test_an_evaluation_reads_back(place: Place) -> None:
    assert place.artifacts.read_evaluation(DIGEST, Numbers) is None
    place.artifacts.write_evaluation(DIGEST, NUMBERS)
    assert place.artifacts.read_evaluation(DIGEST, Numbers) == WRITTEN
    assert place.artifacts.read_evaluation(OTHER, Numbers) is None
    assert place.said == []


def evaluation_of(place: Place) -> Path:
    place.artifacts.write_evaluation(DIGEST, NUMBERS)
    (path,) = (place.artifacts.root / "evaluations").iterdir()
    return path


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_an_edited_evaluation_is_never_shown(at: int, place: Place) -> None:
    path = evaluation_of(place)
    flip(path, at)
    # The last digit of a float may be another one of the same number.
    assert place.artifacts.read_evaluation(DIGEST, Numbers) in (None, WRITTEN)
    place.artifacts.write_evaluation(DIGEST, NUMBERS)
    assert place.artifacts.read_evaluation(DIGEST, Numbers) == WRITTEN


def test_an_evaluation_of_an_older_version_is_made_anew(place: Place) -> None:
    path = evaluation_of(place)
    path.write_text(json.dumps(NUMBERS))
    assert place.artifacts.read_evaluation(DIGEST, Numbers) is None
    assert "was written by another version" in place.said[0]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"forward_kl": 0.5}, "Numbers: 'answers' is missing or unknown"),
        ({**NUMBERS, "rouge": 1.0}, "Numbers: 'rouge' is missing or unknown"),
        ({**NUMBERS, "forward_kl": "0.5"}, "forward_kl is not of its type"),
        ({**NUMBERS, "answers": "ab"}, "answers is not of its type"),
    ],
)
def test_an_evaluation_with_other_fields_is_made_anew(fields: dict[str, object], reason: str, place: Place) -> None:
    """It bears the name of this version: a release that was never published may have written it."""
    place.artifacts.write_evaluation(DIGEST, fields)
    assert place.artifacts.read_evaluation(DIGEST, Numbers) is None
    assert f"is not an evaluation ({reason}): it is made anew" in place.said[0]


def test_an_evaluation_that_was_renamed_is_not_another(place: Place) -> None:
    path = evaluation_of(place)
    path.rename(path.with_name(f"{OTHER[:16]}.json"))
    assert place.artifacts.read_evaluation(OTHER, Numbers) is None
    assert "belongs to abababababababab, not to cdcdcdcdcdcdcdcd" in place.said[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(content=st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_lies_there_is_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("kept", numbered=True) / "document.json"
    path.write_bytes(content)
    with pytest.raises(OutdatedError):
        read_sealed(path, schema="stillroom/evaluation/2", digest=DIGEST)


@given(changed=st.sampled_from(["schema", "digest", "sha256", "value", "extra"]), value=JSON)
def test_a_changed_field_breaks_the_seal(changed: str, value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("kept", numbered=True) / "document.json"
    document = sealed("s/1", DIGEST, {"value": 1.5})
    edited = json.dumps(document | {changed: value})
    if edited != json.dumps(document):
        path.write_text(edited)
        with pytest.raises(OutdatedError):
            read_sealed(path, schema="s/1", digest=DIGEST)


class TestHashes:
    """`FileDigests`: remembered only while nothing about the file changes."""

    @pytest.fixture
    def digests(self, tmp_path: Path) -> FileDigests:
        return FileDigests(tmp_path / "memo" / "digests.json")

    @pytest.fixture
    def hashed(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        seen: list[Path] = []

        def watched(path: Path) -> str:
            seen.append(path)
            return file_sha256(path)

        monkeypatch.setattr(kept, "file_sha256", watched)
        return seen

    def test_an_unchanged_file_is_hashed_once(self, digests: FileDigests, hashed: list[Path], tmp_path: Path) -> None:
        one, other = tmp_path / "one", tmp_path / "other"
        one.write_text("one")
        other.write_text("other")
        first = digests.of([one, other])
        assert first == {path: file_sha256(path) for path in (one, other)}
        assert digests.of([other, one]) == first
        assert hashed == [one, other]

    @pytest.mark.parametrize("way", ["in place", "renamed over"])
    def test_the_same_size_and_time_do_not_deceive(self, way: str, digests: FileDigests, tmp_path: Path) -> None:
        path, other = tmp_path / "weights", tmp_path / "other"
        path.write_bytes(b"aaaa")
        status = path.stat()
        digests.of([path])
        target = path if way == "in place" else other
        target.write_bytes(b"bbbb")
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        if way != "in place":
            other.rename(path)
        assert digests.of([path]) == {path: file_sha256(path)}

    def test_files_that_are_gone_are_forgotten(self, digests: FileDigests, tmp_path: Path) -> None:
        paths = [tmp_path / str(number) for number in range(3)]
        for path in paths:
            path.write_text(path.name)
        digests.of(paths[:2])
        paths[0].unlink()
        digests.of(paths[2:])
        assert {Path(name) for name in json.loads(digests.memo.read_text())["files"]} == set(paths[1:])

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1, "files": {"x": 1}}', b"[" * 100_000])
    def test_a_damaged_memo_is_worth_nothing(self, content: bytes, digests: FileDigests, tmp_path: Path) -> None:
        path = tmp_path / "one"
        path.write_text("one")
        digests.memo.parent.mkdir()
        digests.memo.write_bytes(content)
        assert digests.of([path]) == {path: file_sha256(path)}
        assert digests.of([path]) == {path: file_sha256(path)}


@pytest.mark.parametrize(
    "files", [None, [], {"config.json": 3}, {"config.json": [1]}, {"config.json": ["2", "ab"]}, {"config.json": [2, 3]}]
)
def test_a_sealed_list_of_files_that_is_none_is_refused(files: object, tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text(json.dumps(sealed("s/1", "a" * 64, {} if files is None else {"files": files})))
    with pytest.raises(OutdatedError, match="does not list the files"):
        kept.read_directory(tmp_path, schema="s/1", digest="a" * 64, digests=FileDigests(tmp_path / "memo"))


def test_a_sealed_document_without_an_address_is_refused(tmp_path: Path) -> None:
    document = {"schema": "s/1", "value": 1}
    path = tmp_path / "e.json"
    path.write_text(json.dumps(document | {"sha256": kept._seal(document)}))
    with pytest.raises(OutdatedError, match="belongs to None"):
        read_sealed(path, schema="s/1", digest="a" * 64)
