"""The binary body under a fuzzer that sees which lines it reaches (`pip install stillroom[fuzz]`; left out without it)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cache import Signal, SignalRecord, SignalRequest, TeacherRecord
from cache.identity import TeacherIdentity
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest
from cache.signals import signal_key
from teacher_server import FakeTeacher
from teacher_server.http.signals.texts import ReadText
from teacher_server.http.signals.wire import encode_signals
from teacher_server.http.wire import Answered, encode_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "tests/support/fuzzed_wire.py"
RUNS = 40_000
IDENTITY, VOCAB = "d" * 64, 151
"""Those of the harness."""


def honest_bodies() -> list[bytes]:
    """Bodies without their checksums, from which the fuzzer begins."""
    teacher = FakeTeacher(TeacherIdentity(weights_sha256="d" * 64, config_sha256="e" * 64), vocab=VOCAB, eos_id=2)
    bodies = []
    for k in (0, 1, 3):
        outcomes = [*teacher.generate([GenerateRequest((1, 5), (2,), 3), GenerateRequest((1, 6), (2,), 2)], k=k)]
        if k:
            outcomes += teacher.score([ScoreRequest((1, 9, 5), 2)], k=k)
        answers: list[Answered[TeacherRecord]] = [Answered(outcome, cached=at == 1) for at, outcome in outcomes]
        bodies.append(encode_records([*answers, Answered(Failure("no"))], identity=IDENTITY))
    text, seen = ReadText((2, 4, 3), 3), list[Answered[SignalRecord]]()
    signals = [Signal("class_logits"), Signal("tag_logits")]
    for signal in signals:
        request = SignalRequest(text.token_ids, text.split, signal)
        values = np.zeros((signal.rows(3), 2), np.float32)
        ids = np.array(text.token_ids, np.int32)
        seen.append(Answered(SignalRecord(signal_key(IDENTITY, request), ids, text.split, signal, values)))
    return [body[:-4] for body in (*bodies, encode_signals(seen, [text], signals, identity=IDENTITY))]


def test_a_fuzzer_finds_no_body_that_is_neither_read_nor_refused(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for at, body in enumerate(honest_bodies()):
        (corpus / str(at)).write_bytes(body)
    options = [
        f"-runs={RUNS}",
        "-max_len=4096",
        "-seed=1",
        "-rss_limit_mb=4096",
        "-timeout=20",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(
        [sys.executable, str(HARNESS), str(corpus), *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"Done {RUNS}" in done.stderr, done.stderr[-3000:]
    # It got past what only refuses: it read whole answers.
    assert len(list(corpus.iterdir())) > 20
