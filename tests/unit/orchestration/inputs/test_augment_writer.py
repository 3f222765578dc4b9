from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from configs import ConfigError, ModelError
from configs.models import ModelSource
from configs.schema import ModelShape
from orchestration.inputs import augment_writer
from orchestration.inputs.augment_choices import Beginning
from orchestration.inputs.augment_writer import CausalWriter, Sampling
from orchestration.inputs.models import locate_model
from tests.support.augment_models import BEGIN, END, POSITIONS, WORDS, save_masked, save_writer

ENTRIES = (BEGIN, END, "<unk>", *WORDS)

BEGINNINGS = [
    Beginning(text, seed=2**200 + at)
    for at, text in enumerate(["please move", "cancel", "what does the", "it rains", "no", "", "in rome", "move elephants"])
]  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_writer(tmp_path_factory.mktemp("writer"))


def by_hand(directory: Path, beginning: Beginning, *, tokens: int, temperature: float) -> str:
    """One text, without a batch or a cache of keys, by the inverse of the cumulated probabilities."""
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    random = np.random.default_rng(beginning.seed)
    ids = [0, *(ENTRIES.index(word) if word in ENTRIES else 2 for word in beginning.text.split())]
    written: list[str] = []
    for _ in range(tokens):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1, : len(ENTRIES)].double()
        shares = torch.softmax(logits / temperature, dim=0).cumsum(0)
        token = int((shares <= random.random()).sum())
        if ENTRIES[token] == END:
            break
        ids.append(token)
        written.append(ENTRIES[token])
    return " ".join(word for word in written if word not in (BEGIN, "<unk>"))


@pytest.mark.parametrize(("together", "temperature"), [(64, 1.0), (1, 1.0), (2, 3.0)])
def test_continuations_are_those_of_an_independent_pass(
    together: int, temperature: float, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augment_writer, "WRITTEN_TOGETHER", together)
    told: list[tuple[int, int]] = []
    writer = CausalWriter(directory, label="it", report=lambda done, total: told.append((done, total)))
    found = writer.continued(BEGINNINGS, max_new_tokens=8, temperature=temperature)
    wanted = [by_hand(directory, each, tokens=8, temperature=temperature) for each in BEGINNINGS]
    assert [text.split() for text in found] == [text.split() for text in wanted]
    assert told[-1] == (len(BEGINNINGS), len(BEGINNINGS))
    assert len(set(wanted)) == len(wanted)
    assert {len(text.split()) for text in found} > {8}


def test_a_text_is_continued_alike_whatever_stands_beside_it(directory: Path) -> None:
    writer = CausalWriter(directory, label="it")
    together = writer.continued(BEGINNINGS, max_new_tokens=8, temperature=1.0)
    for at, beginning in enumerate(BEGINNINGS):
        assert writer.continued([beginning], max_new_tokens=8, temperature=1.0) == [together[at]]
    again = [Beginning(each.text, each.seed + 1) for each in BEGINNINGS]
    assert writer.continued(again, max_new_tokens=8, temperature=1.0) != together


def test_the_global_generator_is_left_alone(directory: Path) -> None:
    writer = CausalWriter(directory, label="it")
    before = torch.random.get_rng_state()
    writer.continued(BEGINNINGS[:2], max_new_tokens=4, temperature=1.0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_text_ends_where_the_model_reads_no_further(directory: Path) -> None:
    writer = CausalWriter(directory, label="it")
    long = " ".join(WORDS[: POSITIONS - 3])
    (short,) = writer.continued([Beginning(long, 5)], max_new_tokens=8, temperature=50.0)
    (nothing,) = writer.continued([Beginning(f"{long} no yes", 5)], max_new_tokens=8, temperature=50.0)
    assert len(short.split()) <= 2
    assert nothing == ""


def test_bytes_become_the_first_line_of_whole_characters(tmp_path: Path) -> None:
    shape = ModelShape(layers=1, hidden=32, heads=2, kv_heads=2, mlp=32, vocab=264)
    directory = locate_model(ModelSource(random=shape), models_root=tmp_path)
    beginnings = [Beginning("so", seed) for seed in range(40)]
    found = CausalWriter(directory, label="it").continued(beginnings, max_new_tokens=24, temperature=30.0)
    assert all(len(text.splitlines()) <= 1 and not text.endswith("\ufffd") for text in found)
    assert len({text for text in found if text}) > 20


def test_shares_of_tokens_are_those_of_the_softmax() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4, 50.0]])).repeat(4000, 1) * 2.0
    chosen = Sampling(range(4000), temperature=2.0, vocab=4)(torch.zeros(4000, 1), logits)
    assert torch.isfinite(chosen).sum(dim=1).tolist() == [1] * 4000
    counts = torch.isfinite(chosen).sum(dim=0).double() / 4000
    assert np.abs(counts.numpy() - [0.1, 0.2, 0.3, 0.4, 0.0]).max() < 0.03


def test_logits_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ModelError, match="logits that are not finite"):
        Sampling([0], temperature=1.0, vocab=3)(torch.zeros(1, 1), torch.tensor([[0.0, torch.nan, 0.0]]))


def test_more_tokens_than_a_model_reads_are_refused(directory: Path) -> None:
    writer = CausalWriter(directory, label="llama")
    with pytest.raises(ConfigError, match=f"^data.augment has max_new_tokens=16 and llama reads {POSITIONS} tokens"):
        writer.continued(BEGINNINGS, max_new_tokens=POSITIONS, temperature=1.0)


def test_a_model_that_writes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^bert: .* does not describe a decoder"):
        CausalWriter(save_masked(tmp_path), label="bert")
