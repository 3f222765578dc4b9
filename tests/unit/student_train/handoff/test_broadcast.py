"""Weights that are sent from memory to memory."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from student_builders import tiny_llama
from torch import Tensor

from cache.fingerprint import fingerprint_model
from configs.regular_files import UnreadableFileError
from student_train.handoff import broadcast
from student_train.handoff.broadcast import OFFER, Offer, OfferedTensor, Receiver, send
from student_train.handoff.rollouts import RolloutExchange

CPU = torch.device("cpu")
WEIGHTS = {
    "half": torch.randn(7, 3).to(torch.bfloat16),
    "strided": torch.arange(12.0).reshape(3, 4).T,
    "scalar": torch.tensor(2.5),
}


def receive(meeting: Path, place: int, *, size: int, tensors: Sequence[OfferedTensor]) -> dict[str, Tensor]:
    receiver = pickle.loads(pickle.dumps(Receiver(meeting, place, size, tuple(tensors))))
    return dict(receiver(0, CPU))


def test_every_receiver_gets_every_bit(tmp_path: Path) -> None:
    offered = Offer.of(WEIGHTS).tensors
    with ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(receive, tmp_path, place, size=3, tensors=offered) for place in (1, 2)]
        send(WEIGHTS, meeting=tmp_path, size=3, device=CPU)
    for received in (each.result() for each in taken):
        assert list(received) == list(WEIGHTS)
        for name, tensor in WEIGHTS.items():
            assert received[name].dtype == tensor.dtype and torch.equal(received[name], tensor)


def test_an_offer_names_the_same_weights_as_the_files_would(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "model", seed=3)
    offer = Offer.of(load_file(model / "model.safetensors"))
    assert offer.weights_sha256 == fingerprint_model(model).weights_sha256
    offer.write(tmp_path)
    assert Offer.read(tmp_path) == offer
    assert Offer.read(model) is None


@pytest.mark.timeout(20)
def test_what_is_not_an_offer_is_named(tmp_path: Path) -> None:
    path = tmp_path / OFFER
    for content in ("[" * 100_000, "[]", '{"tensors": [{}], "weights_sha256": "x"}', '{"tensors": []}'):
        path.write_text(content)
        with pytest.raises(UnreadableFileError, match=str(path)):
            Offer.read(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UnreadableFileError, match="a named pipe"):
        Offer.read(tmp_path)


def test_the_sender_outlives_receivers_that_leave_at_once(tmp_path: Path) -> None:
    """As a worker group does: the last receiver goes, and with it whoever asked, while the sender still has its store."""
    exchange = RolloutExchange(tmp_path)
    offered = Offer.of(WEIGHTS).tensors
    for _ in range(20):
        with ThreadPoolExecutor(1) as pool:
            with exchange.meeting(1, receivers=1) as meeting:
                sent = pool.submit(send, WEIGHTS, meeting=meeting, size=2, device=CPU)
                receive(meeting, 1, size=2, tensors=offered)
            assert meeting.is_dir()
            sent.result()


def test_who_leaves_before_the_end_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "MEETING_TIMEOUT", timedelta(seconds=2))
    receiver = Receiver(tmp_path, 1, 2, Offer.of(WEIGHTS).tensors)
    with ThreadPoolExecutor(1) as pool:
        left = pool.submit(lambda: next(receiver(0, CPU))[0])
        with pytest.raises(RuntimeError):
            send(WEIGHTS, meeting=tmp_path, size=2, device=CPU)
    assert left.result() == "half"


def test_nobody_waits_for_ever_for_one_who_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "MEETING_TIMEOUT", timedelta(milliseconds=200))
    with pytest.raises(RuntimeError):
        send(WEIGHTS, meeting=tmp_path, size=2, device=CPU)
    with pytest.raises(RuntimeError):
        receive(tmp_path, 1, size=3, tensors=Offer.of(WEIGHTS).tensors)
