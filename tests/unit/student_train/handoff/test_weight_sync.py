"""Weights that leave a worker group, as files and by a broadcast."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from student_builders import tiny_llama
from transformers import AutoModelForCausalLM

from student_train.handoff import broadcast
from student_train.handoff.broadcast import Offer, Receiver
from student_train.handoff.rollouts import RolloutExchange
from student_train.handoff.weight_sync import BroadcastSync, FileSync, WeightSync, weight_sync
from student_train.worker_group import WorkerGroup

CPU = torch.device("cpu")
WEIGHTS = {"half": torch.randn(7, 3).to(torch.bfloat16), "scalar": torch.tensor(2.5)}


@pytest.mark.parametrize(("kind", "made"), [("files", FileSync), ("broadcast", BroadcastSync)])
def test_the_setting_names_the_way(kind: str, made: type, tmp_path: Path) -> None:
    sync = weight_sync(WorkerGroup(0, 1, CPU), RolloutExchange(tmp_path), kind=kind, model=None, start=tmp_path)
    assert type(sync) is made
    assert isinstance(sync, WeightSync)


def test_files_are_a_plain_model_that_outlives_the_process(tmp_path: Path) -> None:
    start, exchange = tiny_llama(tmp_path / "start"), RolloutExchange(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(start)
    weights = {name: value + 1.0 for name, value in model.state_dict().items()}
    sync = FileSync(exchange, model=model, start=start)
    assert not sync.holds(1)
    sync.publish(1, weights)
    assert FileSync(exchange, model=model, start=start).holds(1)
    stored = load_file(exchange.policy(1) / "model.safetensors")
    assert torch.equal(stored["model.norm.weight"], weights["model.norm.weight"])
    assert (exchange.policy(1) / "tokenizer.json").read_bytes() == (start / "tokenizer.json").read_bytes()


def test_a_group_sends_to_those_who_ask_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = RolloutExchange(tmp_path)
    sync = BroadcastSync(exchange, device=CPU)
    assert not sync.holds(1)
    sync.publish(1, WEIGHTS)
    assert sync.holds(1) and not sync.holds(2)
    offer = Offer.read(exchange.policy(1))
    assert offer is not None
    with monkeypatch.context() as hasty, exchange.meeting(1, receivers=1):
        hasty.setattr(broadcast, "MEETING_TIMEOUT", timedelta(milliseconds=200))
        sync.attend(1)
    with exchange.meeting(1, receivers=1) as meeting, ThreadPoolExecutor(1) as pool:
        taken = pool.submit(dict, Receiver(meeting, 1, 2, offer.tensors)(0, CPU))
        sync.attend(1)
    assert torch.equal(taken.result()["half"], WEIGHTS["half"])
    assert (meeting, 1) in exchange.meetings(1)
    exchange.clean(side="rollouts")
    assert exchange.meetings(1) == []
