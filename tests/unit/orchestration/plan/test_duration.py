"""How long a fill takes, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from plan_builders import LLAMA_70B, SHAPE, planned

from configs.architecture import TextModel
from configs.models import Device
from configs.schema import EngineSettings, ModelShape
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.duration import (
    AUDIT_READ_RATE,
    FillTime,
    TeacherWork,
    audit_seconds,
    expected_seconds,
    expected_signal_seconds,
)


def fill(
    shape: ModelShape = LLAMA_70B, *, accelerator: Device = "gpu", read: int = 0, written: int = 0, **settings: Any
) -> FillTime:
    return expected_seconds(
        planned(shape),
        work=TeacherWork(read, written),
        settings=EngineSettings(**settings),
        accelerator=accelerator,
        dtype="bfloat16",
    )


def test_nothing_to_ask_takes_no_time() -> None:
    assert fill().seconds == 0.0
    assert fill().gpu_hours == 0.0


def test_gpu_reading_by_hand() -> None:
    # 312e12 x 0.4 x 4 GPUs / (2 x 70,553,706,496) = 3,538 tokens/s an engine; two engines; 60 s of start.
    found = fill(read=7_076_000, count=2, tensor_parallel=4)
    assert found.read_rate == pytest.approx(7_076, rel=1e-3)
    assert found.seconds == pytest.approx(60 + 1000, rel=1e-3)
    assert found.gpu_hours == pytest.approx(found.seconds * 8 / 3600)


def test_gpu_writing_by_hand() -> None:
    # A step of 64 sequences on 4 GPUs: 35.277 GB of weights and 64 x 512 x 81,920 B = 2.684 GB of keys and values at
    # 1.2 TB/s take 31.63 ms, the arithmetic of 64 tokens 64 / 3,538 s = 18.09 ms.
    found = fill(written=1, tensor_parallel=4, max_sequences=64, max_model_len=1024)
    assert found.write_rate == pytest.approx(64 / (0.03163 + 0.01809), rel=1e-3)


def test_stages_read_together_and_a_token_passes_all_of_them() -> None:
    one, two = (fill(written=1, tensor_parallel=4, pipeline_parallel=n, max_sequences=64) for n in (1, 2))
    assert two.read_rate == pytest.approx(2 * one.read_rate)
    # Each half of the sequences waits for the weights of both stages: 35.277 GB in all at 1.2 TB/s. Their keys and
    # values (1.342 GB a stage) and their arithmetic (9.05 ms) halve.
    assert two.write_rate == pytest.approx(64 / (0.03052 + 0.00905), rel=1e-3)
    assert (one.gpus, two.gpus) == (4, 8)


def test_cpu_rates_scale_with_cores_and_parameters() -> None:
    small = ModelShape(layers=30, hidden=576, heads=9, kv_heads=3, mlp=1536, vocab=49152, tied_embeddings=True)
    measured = fill(small, accelerator="cpu", read=5500, written=2300, cpus=2)
    assert (measured.read_rate, measured.write_rate) == (550.0, 230.0)
    assert measured.seconds == pytest.approx(60 + 10 + 10)
    assert measured.gpus == 0
    assert fill(small, accelerator="cpu", cpus=8).write_rate == pytest.approx(4 * 230)
    assert fill(small, accelerator="cpu", cpus=2, count=3).write_rate == pytest.approx(3 * 230)
    assert fill(LLAMA_70B, accelerator="cpu", cpus=2).write_rate == pytest.approx(230 * 134_515_008 / 70_553_706_496)


def test_a_toy_is_not_promised_absurd_speed() -> None:
    assert fill(SHAPE, accelerator="cpu", cpus=2).write_rate == 2300.0


MINILM = TextModel(layers=6, hidden=384, mlp=1536, positions=512, labels=("a", "b"), heads=12, vocab=30_522)


@pytest.mark.parametrize(
    ("settings", "device", "dtype", "rate"),
    [
        ({}, "cpu", "float32", 6000.0),
        ({"cpus": 4, "count": 2}, "cpu", "float32", 24_000.0),
        # 19.5 TFLOPS x 0.4 / (2 x 10,616,832), and 312 in 16 bits.
        ({"count": 2}, "gpu", "float32", 2 * 367_341.1),
        ({}, "gpu", "bfloat16", 5_877_459.5),
    ],
)
def test_signals_are_read_at_a_measured_rate(settings: dict[str, Any], device: Any, dtype: Any, rate: float) -> None:
    found = expected_signal_seconds(
        MINILM, tokens=60_000, settings=EngineSettings(**settings), accelerator=device, dtype=dtype
    )
    assert found.read_rate == pytest.approx(rate, rel=1e-4)
    assert found.seconds == pytest.approx(20 + 60_000 / rate, rel=1e-4)
    assert found.gpus == (settings.get("count", 1) if device == "gpu" else 0)


def test_small_models_are_not_trusted_to_be_fast_and_nothing_takes_no_time() -> None:
    tiny = TextModel(layers=1, hidden=16, mlp=16, positions=64, labels=(), heads=1, vocab=10)
    asked = {"settings": EngineSettings(), "accelerator": "cpu", "dtype": "float32"}
    assert expected_signal_seconds(tiny, tokens=1, **asked).read_rate == 60_000  # type: ignore[arg-type]
    assert expected_signal_seconds(tiny, tokens=0, **asked).seconds == 0  # type: ignore[arg-type]


def test_audits_take_longer_with_more_tokens_and_with_larger_models() -> None:
    small = ModelShape(layers=30, hidden=576, heads=9, kv_heads=3, mlp=1536, vocab=49152, tied_embeddings=True)
    large = small.model_copy(update={"layers": 60})

    def took(shape: ModelShape, accelerator: Device) -> float:
        model = PlannedShape("a model", shape, assumed=False)
        return audit_seconds(
            model, read_tokens=20 * AUDIT_READ_RATE, written_tokens=0.0, accelerator=accelerator, cpus=2
        )

    assert took(small, "cpu") == pytest.approx(10.0)
    assert took(large, "cpu") > took(small, "cpu") > 100 * took(small, "gpu") and took(large, "gpu") > took(
        small, "gpu"
    )
