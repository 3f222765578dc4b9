"""A whole training step here against TRL's, on the same pair, tokens, dtype and machine, each in a process of its own.

TRL keeps no teacher outputs: its trainers run the teacher in every step. `GKDTrainer` with lmbda 0 learns given
completions, which is our case. `DistillationTrainer` always writes new ones; here it is handed the given ones instead,
so that its newer loss is measured and not its generation. Both learn the forward KL from the whole distribution at
temperature 1. Ours is the cached-KD step under DeepSpeed, with the float32 master weights that TRL goes without here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from benchmarks.measurement import Measurement, Row, at_least
from benchmarks.pair import LENGTH, RESPONSE, ROWS, STUDENT_LAYERS, TEACHER_LAYERS, VOCAB, answers, llama
from configs.logs import quiet_environment
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from student_train.models.decoder import StudentModule, take_apart
from student_train.worker_group import join_group

STEPS = 2
"""Measured steps of each; the best counts. One more before them does not."""


def bench_trl_step() -> Iterator[Row]:
    """Tokens a second of each, and how much faster ours is."""
    if importlib.util.find_spec("trl") is None:
        yield "TRL's step: not measured, TRL is not installed (pip install --no-deps -r requirements/bench.txt)"
        return
    seconds = {name: _in_own_process(name) for name in CONTENDERS}
    rates = {name: ROWS * LENGTH / value for name, value in seconds.items()}
    yield Measurement("training step, cached KD", rates.pop("ours"), "tokens/s", digits=0, peers=rates)
    for name in ("GKDTrainer", "DistillationTrainer"):
        yield at_least(f"TRL {name} step / our cached-KD step", seconds[name] / seconds["ours"], 1.0)


def _in_own_process(contender: str) -> float:
    """The shortest of its steps, in seconds."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.trl_step", contender]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet_environment())
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _our_step() -> float:
    group = join_group(None)
    # Imported late: DeepSpeed picks its accelerator from the environment while it is imported.
    from student_train.training.deepspeed_engine import DeepSpeedEngine

    stage = StageConfig.model_validate({"objective": "kd", "steps": 1})
    module = StudentModule(take_apart(llama(STUDENT_LAYERS)), stage=stage, vocab=VOCAB)
    engine = DeepSpeedEngine(module, stage=stage, settings=TrainingSettings(), group=group)
    batch = answers()
    times = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        engine.step([batch], places=len(batch.labels), learning_rate=1e-6, stop=lambda: False)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _gkd_step() -> float:
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    tokens = answers().input_ids.cpu()
    labels = tokens.clone()
    labels[:, : LENGTH - RESPONSE] = -100
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
    with tempfile.TemporaryDirectory() as folder:
        trainer = GKDTrainer(
            llama(STUDENT_LAYERS),
            llama(TEACHER_LAYERS),
            args=GKDConfig(output_dir=folder, lmbda=0.0, beta=0.0, temperature=1.0, **_settings()),
            data_collator=lambda rows: batch,
            train_dataset=_rows(),
            processing_class=_tokenizer(),
        )
        return _timed(trainer)


def _distillation_step() -> float:
    from trl import DistillationConfig, DistillationTrainer

    tokens = answers().input_ids
    prompt, completion = tokens[:, : LENGTH - RESPONSE], tokens[:, LENGTH - RESPONSE :]
    given = {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": completion,
        "completion_mask": torch.ones_like(completion),
        "num_items_in_batch": torch.tensor(float(completion.numel()), device=tokens.device),
    }

    class GivenCompletions(DistillationTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, torch.Tensor]:
            return dict(given)

    with tempfile.TemporaryDirectory() as folder:
        trainer = GivenCompletions(
            llama(STUDENT_LAYERS),
            llama(TEACHER_LAYERS),
            args=DistillationConfig(output_dir=folder, beta=0.0, temperature=1.0, **_settings()),
            train_dataset=_rows(),
            processing_class=_tokenizer(),
        )
        return _timed(trainer)


CONTENDERS: dict[str, Callable[[], float]] = {
    "ours": _our_step,
    "GKDTrainer": _gkd_step,
    "DistillationTrainer": _distillation_step,
}


def _settings() -> dict[str, Any]:
    """The same for both trainers: pure bfloat16, one batch a step, no recomputation, nothing written."""
    return {
        "max_steps": STEPS + 1,
        "per_device_train_batch_size": ROWS,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "bf16": False,
        "learning_rate": 1e-6,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "use_cpu": not torch.cuda.is_available(),
    }


def _timed(trainer: Any) -> float:
    """Train, and return the shortest time from the start of a step to its end, the optimiser's part included."""
    # Imported late: it brings DeepSpeed, which our own step must import after it has set the environment.
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(-time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times[-1] += time.perf_counter()

    trainer.add_callback(Clock())
    trainer.train()
    return min(times[1:])


def _rows() -> Dataset:
    """A data set of prompts that are read and not used."""
    return Dataset.from_dict({"prompt": ["nothing"] * ROWS * (STEPS + 1)})


def _tokenizer() -> PreTrainedTokenizerFast:
    """The smallest tokenizer that the trainers accept."""
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2, "nothing": 3}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


if __name__ == "__main__":
    print(json.dumps({"seconds": CONTENDERS[sys.argv[1]]()}))
