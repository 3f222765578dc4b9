"""Artifacts by digest, and the claim that keeps two pipelines from making the same one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from configs import ConfigError
from orchestration.outputs.artifacts import Artifacts, claim_directory, digest_of, sweep_run, write_json

DIGEST = "ab" * 32
HOLDER = """
import sys, time
from pathlib import Path
from orchestration.outputs.artifacts import Artifacts
with Artifacts(Path(sys.argv[1])).claim(sys.argv[2], what="a student"):
    print("holding", flush=True)
    sys.stdin.readline()
print("released", flush=True)
time.sleep(600)
"""
Holders = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "runs")


@pytest.fixture
def hold(artifacts: Artifacts) -> Iterator[Holders]:
    """Starts processes that hold a claim until they get a line; they are ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(digest: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(artifacts.root), digest]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(holder)
        assert holder.stdout is not None and holder.stdout.readline() == "holding\n"
        return holder

    yield start
    for holder in started:
        holder.kill()
        holder.communicate()


def is_free(artifacts: Artifacts, digest: str) -> bool:
    """Whether a claim would be granted at once."""
    with (artifacts.root / "locks" / digest[:16]).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_claim_excludes_another_process(artifacts: Artifacts, hold: Holders) -> None:
    with artifacts.claim(DIGEST, what="a student"):
        command = [sys.executable, "-c", HOLDER, str(artifacts.root), DIGEST]
        second = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            # It blocks inside the claim: in the kernel's list of locks it waits ("->").
            while f"-> FLOCK  ADVISORY  WRITE {second.pid} " not in Path("/proc/locks").read_text():
                assert second.poll() is None
                time.sleep(0.01)
        except BaseException:
            second.kill()
            raise
    assert second.stdout is not None and second.stdout.readline() == "holding\n"
    second.kill()
    second.communicate()


def test_who_waits_says_for_whom(artifacts: Artifacts, hold: Holders) -> None:
    holder = hold(DIGEST)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()

    with replace(artifacts, say=say).claim(DIGEST, what="the student x"):
        assert len(said) == 1
    pattern = (
        rf"the student x is being made by another run \(process {holder.pid} on \S+ since [-\d]+ [:\d]+\): waiting"
    )
    assert re.match(pattern, said[0])
    with replace(artifacts, say=pytest.fail).claim(DIGEST, what="the student x"):
        pass


def test_a_file_system_without_locks_is_one_line(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(lock: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with (
        pytest.raises(ConfigError, match=r"runtime\.run_root is on a file system that has no file locks \(No locks"),
        artifacts.claim(DIGEST, what="a student"),
    ):
        pass


def test_what_killed_runs_left_is_swept(artifacts: Artifacts, hold: Holders) -> None:
    finished, training, exporting = DIGEST, "cd" * 32, "ef" * 32
    staging = [artifacts.root / folder / f".staging-{exporting[:16]}-0a1b" for folder in ("inits", "students")]
    for folder in (artifacts.work_dir(finished), artifacts.work_dir(training), *staging):
        (folder / "step-000000001").mkdir(parents=True)
    artifacts.student_dir(finished).mkdir()
    artifacts.keep_student(finished, {})
    drafts = [artifacts.root / "evaluations" / f".{name}.json.0a1b.tmp" for name in ("old", "new")]
    drafts[0].parent.mkdir()
    for draft in drafts:
        draft.touch()
    os.utime(drafts[0], (0, 0))
    holders = [hold(exporting), hold(finished)]
    artifacts.sweep()
    assert artifacts.work_dir(finished).exists() and all(path.exists() for path in staging)
    for holder in holders:
        holder.kill()
        holder.wait()
    artifacts.sweep()
    assert not artifacts.work_dir(finished).exists() and not any(path.exists() for path in staging)
    # Those that are to be gone on from stay.
    assert artifacts.work_dir(training).exists()
    assert artifacts.read_student(finished) == {}
    assert [draft.exists() for draft in drafts] == [False, True]


def test_a_killed_holder_frees_its_claim(artifacts: Artifacts, hold: Holders) -> None:
    holder = hold(DIGEST)
    assert not is_free(artifacts, DIGEST)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with artifacts.claim(DIGEST, what="a student"):
        pass


def test_a_claim_ends_with_its_block(artifacts: Artifacts, hold: Holders) -> None:
    holder = hold(DIGEST)
    assert holder.stdin is not None and holder.stdout is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "released\n"
    assert is_free(artifacts, DIGEST)


def test_a_claim_ends_with_an_error_too(artifacts: Artifacts) -> None:
    with pytest.raises(RuntimeError), artifacts.claim(DIGEST, what="a student"):
        raise RuntimeError("training failed")
    assert is_free(artifacts, DIGEST)


def test_claims_of_different_artifacts_do_not_meet(artifacts: Artifacts, hold: Holders) -> None:
    hold(DIGEST)
    with artifacts.claim("cd" * 32, what="another"):
        assert not is_free(artifacts, DIGEST)


def test_every_artifact_has_a_place_of_its_own(artifacts: Artifacts) -> None:
    digests = (DIGEST, "cd" * 32)
    places = [place(d) for d in digests for place in (artifacts.init_dir, artifacts.student_dir, artifacts.work_dir)]
    assert len(set(places)) == 6
    assert all(place.is_relative_to(artifacts.root) for place in places)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"start": "a", "train": "b"}, {"start": "b", "train": "a"}),
        ({"start": "ab"}, {"start": "a", "train": "b"}),
        ({"kept": [1, 2]}, {"kept": [2, 1]}),
        ({"kept": None}, {}),
        ({"rate": 0.1}, {"rate": 0.1 + 2**-50}),
        ({"vocab": 1}, {"vocab": True}),
    ],
)
def test_different_inputs_have_different_digests(one: dict[str, object], other: dict[str, object]) -> None:
    assert digest_of(**one) != digest_of(**other)


def test_a_digest_does_not_know_the_order_of_names() -> None:
    assert digest_of(start="a", train={"x": 1, "y": 2}) == digest_of(train={"y": 2, "x": 1}, start="a")


def test_a_digest_of_something_without_a_text_is_a_defect() -> None:
    with pytest.raises(TypeError):
        digest_of(start=Path("/somewhere"))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"finished": True})
    with pytest.raises(TypeError):
        write_json(path, {"finished": object()})
    assert json.loads(path.read_text()) == {"finished": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "summary.json"
    seen: list[bool] = []
    replace = os.replace

    def watched(source: str, target: str) -> None:
        seen.append(path.exists())
        assert json.loads(Path(source).read_text()) == {"n": 1}
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    write_json(path, {"n": 1})
    assert seen == [False]
    assert json.loads(path.read_text()) == {"n": 1}


def test_a_run_directory_has_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        claim_directory(tmp_path),
        pytest.raises(ConfigError, match="in use by another run"),
        claim_directory(tmp_path),
    ):
        pass
    with claim_directory(tmp_path):
        pass


def test_half_written_files_of_a_killed_run_are_swept(tmp_path: Path) -> None:
    (tmp_path / "views").mkdir()
    drafts = [tmp_path / ".report.json.0a1b.tmp", tmp_path / "views" / ".teacher-dev.npz.0a1b.tmp"]
    (tmp_path / "rollouts" / ".staging-student-0a1b").mkdir(parents=True)
    for path in (*drafts, tmp_path / ".lock", tmp_path / "report.json"):
        path.touch()
    sweep_run(tmp_path)
    left = sorted(path.name for path in tmp_path.rglob("*"))
    assert left == [".lock", "report.json", "rollouts", "views"]
