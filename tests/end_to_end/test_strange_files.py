"""Whatever lies where a file of a run, a model or an experiment is read or written, it is over at once, in one line."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache import ScoreRequest, fingerprint_model
from cache.disk.local_storage import LocalStorage
from cache.failures import Failures
from cache.views import CacheView
from configs import DistillError, load_config
from configs.places import SUMMARY
from configs.regular_files import open_own
from orchestration.cluster import reference as ray_reference
from orchestration.comparison.report import REPORT, read_report
from orchestration.comparison.written_answers import WrittenAnswers
from orchestration.fill.ledger import Ledger
from orchestration.inputs.models import open_model
from orchestration.inputs.rows import file_rows
from orchestration.outputs.artifacts import EVALUATION, START, STUDENT, Artifacts, claim_directory
from orchestration.outputs.curves import CurveReader, CurveWriter
from orchestration.outputs.kept import FileDigests, OutdatedError, sealed
from orchestration.outputs.redirect import terminal_kept
from orchestration.tracking.delivery import Delivery
from orchestration.tracking.mlflow_calls import MlflowCalls
from orchestration.tracking.tracker import Tracker
from student_train.feed.plain_text import PIECES, PlainPieces
from student_train.handoff.broadcast import OFFER, Offer
from student_train.handoff.rollouts import RolloutExchange
from student_train.job import StepMetrics
from student_train.training import checkpoint
from student_train.training.checkpoint import damaged
from student_train.training.shares import ShareFile, put_on_disk

pytestmark = pytest.mark.timeout(20)

DIGEST = "ab" * 32


def endless_arrays() -> bytes:
    """A file of an array that says that it has more numbers than there is memory for."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % 2**60
        archive.writestr("ids.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return packed.getvalue()


def one_array() -> bytes:
    """An array that is not in an archive."""
    packed = io.BytesIO()
    np.save(packed, np.arange(3))
    return packed.getvalue()


def arrays_of(value: object) -> bytes:
    """A file of arrays in which each that is asked for is another thing."""
    packed = io.BytesIO()
    names = ("facts", "samples", "ids", "ends", "header", "logprobs", "target_logprobs", "best_ids")
    np.savez(packed, **{name: np.array(value) for name in names})
    return packed.getvalue()


CONTENTS: dict[str, bytes] = {
    "nothing": b"",
    "no text": b"\xff\xfe\x00\x01",
    "deep": b"[" * 200_000,
    "deep arrays": arrays_of("[" * 200_000),
    "huge": b'{"format": 1' + b"0" * 400 + b', "step": 1' + b"0" * 400 + b', "fill": 1' + b"0" * 400 + b"}\n",
    "long": b'{"format": ' + b"9" * 10_000 + b"}\n",
    "no number": b'{"format": NaN, "step": Infinity, "fill": NaN, "values": {"a": null}}\n',
    "list": b"[[], {}]\n",
    "null": b"null\n",
    "other": b'{"format": {}, "files": 3, "fill": "x", "step": [], "values": [], "tensors": {"a": 1}, "do": []}\n',
    "endless arrays": endless_arrays(),
    "one array": one_array(),
    "other arrays": arrays_of(10.5),
}

KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "nowhere": lambda path: path.symlink_to("missing/file"),
    "itself": lambda path: path.symlink_to(path.name),
}


def put(kind: str, path: Path) -> None:
    if kind in CONTENTS:
        path.write_bytes(CONTENTS[kind])
    else:
        KINDS[kind](path)


def lock(path: Path) -> None:
    with claim_directory(path.parent):
        pass


def claim(path: Path) -> None:
    with Artifacts(path.parents[1]).claim(DIGEST, what="a student"):
        pass


def log(path: Path) -> None:
    with terminal_kept(path) as terminal:
        terminal.write("")


def track(path: Path) -> None:
    Tracker(path.parent, uri=f"sqlite:///{path.parent}/none.db")


def send_artifact(path: Path) -> None:
    spooled = {"do": "artifact", "run": "pipeline", "path": str(path)}
    calls = MlflowCalls(path.parent, uri=f"sqlite:///{path.parent}/none.db", experiment="none")
    calls._runs["pipeline"] = "run"
    calls._log_artifact(NeverAsked(), spooled)


class NeverAsked:
    """A store that takes no artifact here: a regular file is told of, and nothing else."""

    def log_artifact(self, _: str, path: str) -> None:
        assert os.path.isfile(path)


def refuse(path: Path) -> None:
    failures = Failures(LocalStorage(path.parents[1]), identity=DIGEST, engine={"vllm": "1"})
    failures.add({ScoreRequest((1, 2), prompt_len=1): "too long"})


def learn(path: Path) -> None:
    CurveReader(path).new()
    CurveWriter(path)(StepMetrics(1, {"loss": 1.0}))


def spent(path: Path) -> None:
    ledger = Ledger.open(path.parents[1])
    try:
        ledger.counts()
        ledger.metrics()
    finally:
        ledger.close()


def model(path: Path) -> None:
    for name, content in {"config.json": "{}", "tokenizer.json": "{}"}.items():
        if not os.path.lexists(path.parent / name):
            (path.parent / name).write_text(content)
    for read in (fingerprint_model, lambda folder: open_model(folder, label="m")):
        with pytest.raises(DistillError):
            read(path.parent)


READERS: dict[str, Callable[[Path], object]] = {
    "runs/a/report.json": lambda path: read_report(path.parent),
    "runs/a/.lock": lock,
    "runs/a/logs/pipeline.log": log,
    "runs/a/mlflow-runs.json": track,
    "runs/a/report.md": send_artifact,
    "runs/a/spool.jsonl": lambda path: Delivery(lambda _: None, spool=path, service="MLflow"),
    "runs/a/ledger/a.json": spent,
    "runs/a/ledger/teacher-tokens.json": spent,
    "runs/a/views/train.npz": CacheView.load,
    "runs/digests.json": lambda path: FileDigests(path).of([Path(__file__)]),
    f"cache/{DIGEST}/failures/a.json": refuse,
    "runs/references/a.npz": lambda path: ray_reference._read(path, tokens=3),
    "runs/locks/abababababababab": claim,
    "runs/evaluations/abababababababab.json": lambda path: Artifacts(path.parents[1]).read_evaluation(
        DIGEST, WrittenAnswers
    ),
    f"runs/students/abababababababab/{SUMMARY}": lambda path: Artifacts(path.parents[2]).read_student(DIGEST),
    f"runs/inits/abababababababab/{SUMMARY}": lambda path: Artifacts(path.parents[2]).has_start(DIGEST),
    "runs/work/a/curves.jsonl": learn,
    "runs/work/a/step-1/manifest.json": lambda path: damaged(path.parent),
    f"runs/work/a/{PIECES}": lambda path: PlainPieces.load(path, digest=DIGEST),
    "runs/work/a/rollouts/rollout-000/rollout.npz": lambda path: RolloutExchange(path.parents[2]).rollout(0),
    "runs/work/a/rollouts/rollout-000/view.npz": lambda path: CacheView.load(path),
    "runs/work/a/policies/behaviour-000.npz": lambda path: RolloutExchange(path.parents[1]).read_behaviour(0),
    f"runs/work/a/policies/policy-001/{OFFER}": lambda path: Offer.read(path.parent),
    "mine/experiment.yaml": load_config,
    "mine/train.jsonl": lambda path: list(file_rows(path, key="data.train.path")),
    "mine/train.csv": lambda path: list(file_rows(path, key="data.train.path")),
    "mine/train.parquet": lambda path: list(file_rows(path, key="data.train.path")),
    "mine/model/config.json": model,
    "mine/model/generation_config.json": model,
    "mine/model/tokenizer.json": model,
    "mine/model/tokenizer_config.json": model,
    "mine/model/model.safetensors": model,
    "mine/model/model.safetensors.index.json": model,
    "mine/model/chat_template.jinja": model,
}


@pytest.mark.parametrize("kind", [*KINDS, *CONTENTS])
@pytest.mark.parametrize("place", READERS)
def test_it_is_read_or_left_out_or_refused_in_one_line(place: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    put(kind, path)
    try:
        READERS[place](path)
    except DistillError as error:
        assert "\n" not in str(error).replace(f"\n{path}", "")
        assert path.name in str(error) or path.parent.name in str(error)


KEPT = {
    REPORT: "runs/a/report.json",
    EVALUATION: "runs/evaluations/abababababababab.json",
    STUDENT: f"runs/students/abababababababab/{SUMMARY}",
    START: f"runs/inits/abababababababab/{SUMMARY}",
}
FORMER: dict[str, str] = {
    "before there were schemas": '{"config_digest": "c", "models": [], "files": {}, "selected_step": 3}',
    "of an older version": '{"schema": "stillroom/report/1", "digest": "c", "models": [], "sha256": "d"}',
    "of a newer version": '{"schema": "stillroom/evaluation/99", "digest": "c", "values": {}, "sha256": "d"}',
    "of somebody else": '{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}',
    "a schema that is not a text": '{"schema": ["stillroom/student/2"], "digest": 3, "sha256": null}',
}
UNLIKE: dict[str, dict[str, object]] = {
    "without any field": {},
    "with the fields of another document": {"values": {"loss": 1.0}, "files": {"a": [1, 2, 3]}},
    "with fields of other types": {"models": 3, "answers": None, "files": {"config.json": ["big", 7]}, "rests_on": []},
}


@pytest.mark.parametrize("schema", KEPT)
@pytest.mark.parametrize("former", [*FORMER, *UNLIKE])
def test_what_another_version_kept_is_named_and_made_anew(former: str, schema: str, tmp_path: Path) -> None:
    path = tmp_path / KEPT[schema]
    path.parent.mkdir(parents=True)
    text = FORMER[former] if former in FORMER else json.dumps(sealed(schema, DIGEST, UNLIKE[former]))
    path.write_text(text)
    said: list[str] = []
    artifacts = Artifacts(tmp_path / "runs", say=said.append)
    found: object
    try:
        if schema == REPORT:
            found = read_report(path.parent)
        elif schema == EVALUATION:
            found = artifacts.read_evaluation(DIGEST, WrittenAnswers)
        else:
            found = artifacts.read_student(DIGEST) if schema == STUDENT else artifacts.has_start(DIGEST)
    except OutdatedError as error:
        found, said = None, [str(error)]
    assert not found
    assert len(said) == 1 and said[0].startswith(f"{path}: ") and "\n" not in said[0]


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 0, "files": {"%s": {"stamp": 1, "sha256": "x"}}}',
        '{"format": 1, "files": {"%s": {"stamp": "x", "sha256": 3}}}',
        '{"format": 1, "files": {"%s": ["x"]}}',
        '{"%s": "x"}',
    ],
)
def test_a_memo_of_another_version_is_worth_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_text("one")
    (tmp_path / "digests.json").write_text(text % path)
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert FileDigests(tmp_path / "digests.json").of([path]) == {path: digest}


def test_a_file_of_ours_is_made_and_added_to(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        with os.fdopen(open_own(tmp_path / "log", flags=os.O_APPEND), "ab") as stream:
            stream.write(content)
    assert (tmp_path / "log").read_bytes() == b"onetwo"
    assert (tmp_path / "log").stat().st_mode & 0o133 == 0


@pytest.mark.parametrize("kind", ["pipe", "device", "nowhere"])
def test_what_was_put_beside_a_student_and_is_not_a_file_is_noticed(kind: str, tmp_path: Path) -> None:
    """Whoever loads the directory would wait for it."""
    said: list[str] = []
    artifacts = Artifacts(tmp_path, say=said.append)
    folder = artifacts.student_dir(DIGEST)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    artifacts.keep_student(DIGEST, {})
    assert artifacts.read_student(DIGEST) == {}
    put(kind, folder / "tokenizer.json")
    assert artifacts.read_student(DIGEST) is None
    assert "tokenizer.json: was added, and changes what is loaded" in said[0]


def test_so_is_what_was_put_beside_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / checkpoint._STATE).write_bytes(b"{}")
    described = put_on_disk([ShareFile(tmp_path / checkpoint._STATE)], staging=tmp_path, final=tmp_path)
    manifest = {"format": checkpoint.CHECKPOINT_FORMAT, "files": described}
    (tmp_path / checkpoint._MANIFEST).write_text(json.dumps(manifest))
    assert damaged(tmp_path) is None
    os.mkfifo(tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    assert damaged(tmp_path) == "zero_pp_rank_0_mp_rank_00_optim_states.pt is not named by " + checkpoint._MANIFEST
