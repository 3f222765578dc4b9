"""One engine over two ranks, by heads or by layers: processes of its own, the same rows, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance import present, records
from engine_process import EngineProcess, abandoned_shared_memory
from tiny_llama import VOCAB, full_logprobs, save_tiny_llama

from cache.identity import TeacherIdentity
from cache.records import GenerateRequest, ScoreRequest
from configs.schema import EngineSettings

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("split", ["tensor_parallel", "pipeline_parallel"])
def test_two_ranks_say_what_one_model_says(split: str, tmp_path: Path) -> None:
    first, second = save_tiny_llama(tmp_path / "1", seed=0), save_tiny_llama(tmp_path / "2", seed=1)
    shared_memory = abandoned_shared_memory()
    engine = EngineProcess(
        first,
        identity=TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64, dtype="float32"),
        settings=EngineSettings.model_validate(
            {"cpus": 1, "max_model_len": 128, "max_batched_tokens": 128, "max_sequences": 4, "kv_cache_gib": 0.05}
            | {split: 2}
        ),
        vocab=VOCAB,
        seed=1,
        max_logprobs=8,
    )
    try:
        sockets = engine.sockets()
        assert len(sockets.children) == 2
        assert set(sockets.listening) == {"127.0.0.1"}
        given = tuple(range(3, 40))
        for model_dir in (first, second):
            engine.load(model_dir, identity=engine.identity)
            [record] = records(engine.score([ScoreRequest(given, 5)], k=8))
            truth = full_logprobs(model_dir, given)[4:]
            np.testing.assert_allclose(
                present(record.target_logprobs), truth[np.arange(32), list(given[5:])], atol=2e-2
            )
            # More than are at work at once, of different lengths: what is written is what the model would write.
            asked = [GenerateRequest(tuple(range(5, 9 + more)), (2,), 6) for more in range(6)]
            for request, written in zip(asked, records(engine.generate(asked, k=4)), strict=True):
                likeliest = full_logprobs(model_dir, tuple(written.token_ids))[:, :VOCAB].argmax(axis=1)
                start = len(request.prompt_ids)
                assert list(written.token_ids[start:]) == list(likeliest[start - 1 :])
    finally:
        left = engine.close()
    assert left is not None and (left.children, left.listening) == ((), ())
    assert abandoned_shared_memory() <= shared_memory
