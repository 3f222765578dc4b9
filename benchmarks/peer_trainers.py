"""Trainers of others on the same pair, as their own configuration sets them up. None is needed here: see `trl_step`.

TRL keeps no teacher outputs: its trainers run the teacher in every step. `GKDTrainer` with lmbda 0 learns given
completions, which is our case. `DistillationTrainer` always writes new ones; here it is handed the given ones instead,
so that its newer loss is measured and not its generation. Both learn the forward KL from the whole distribution at
temperature 1. DistillKit learns from what it has kept, in its own format, from the top k alone.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from benchmarks.pair import LENGTH, RESPONSE, ROWS, STUDENT_LAYERS, TEACHER_LAYERS, VOCAB, K, answers, llama
from benchmarks.step_loops import LEARNING_RATE, PROMPT, STEPS, kept, tokens
from benchmarks.turns import Turn


def trl_gkd(turn: Turn) -> None:
    """TRL's GKDTrainer with a teacher at hand."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    given = answers().input_ids.cpu()
    labels = given.clone()
    labels[:, :PROMPT] = -100
    batch = {"input_ids": given, "attention_mask": torch.ones_like(given), "labels": labels}
    with tempfile.TemporaryDirectory() as folder:
        trainer = GKDTrainer(
            llama(STUDENT_LAYERS),
            llama(TEACHER_LAYERS),
            args=GKDConfig(output_dir=folder, lmbda=0.0, beta=0.0, temperature=1.0, **_settings()),
            data_collator=lambda rows: batch,
            train_dataset=_prompts(),
            processing_class=_tokenizer(),
        )
        _train(trainer, turn)


def trl_distillation(turn: Turn) -> None:
    """TRL's DistillationTrainer with a teacher at hand."""
    from trl import DistillationConfig, DistillationTrainer

    given_tokens = answers().input_ids
    prompt, completion = given_tokens[:, :PROMPT], given_tokens[:, PROMPT:]
    given = {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": completion,
        "completion_mask": torch.ones_like(completion),
        "num_items_in_batch": torch.tensor(float(completion.numel()), device=given_tokens.device),
    }

    class GivenCompletions(DistillationTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, torch.Tensor]:
            return dict(given)

    with tempfile.TemporaryDirectory() as folder:
        trainer = GivenCompletions(
            llama(STUDENT_LAYERS),
            llama(TEACHER_LAYERS),
            args=DistillationConfig(output_dir=folder, beta=0.0, temperature=1.0, **_settings()),
            train_dataset=_prompts(),
            processing_class=_tokenizer(),
        )
        _train(trainer, turn)


def distillkit_offline(turn: Turn) -> None:
    """DistillKit's trainer on what it has kept: 16 values of a position exactly, a polynomial for the other 48."""
    from distillkit.compression import DistributionQuantizationConfig, LogprobCompressor
    from distillkit.configuration import DistillationRunConfig
    from distillkit.main import collate_packed_batch
    from distillkit.signals import OfflineSignalSource
    from distillkit.trainer import DistillationTrainer
    from trl import SFTConfig

    # As its README recommends, with our k.
    stored = {
        "d": VOCAB, "k": K, "exact_k": 16, "exact_dtype": "bfloat16", "polynomial_terms": [0, 1, 2, 3, 4, "sqrt"],
        "term_dtype": "float32", "residual_bins": [], "delta_encoding": False, "error_diffusion": False,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        config = DistillationRunConfig.model_validate({
            "model": "none", "output_path": folder, "sequence_length": LENGTH,
            "dataset": {"train_dataset": {"disk_path": folder}, "prepacked": True},
            "teacher": {"kind": "dataset", "logprob_compressor": stored},
            "loss_functions": [{
                "function": "kl", "weight": 1.0, "temperature": 1.0,
                "missing_probability_handling": "zero",
            }],
        })  # fmt: skip
        compressor = LogprobCompressor(DistributionQuantizationConfig.model_validate(stored))
        trainer = DistillationTrainer(
            llama(STUDENT_LAYERS),
            config,
            OfflineSignalSource(compressor, vocab_size=VOCAB),
            VOCAB,
            args=SFTConfig(output_dir=folder, dataset_kwargs={"skip_prepare_dataset": True}, **_settings()),
            train_dataset=_distillkit_rows(compressor, folder),
            data_collator=collate_packed_batch,
            processing_class=_tokenizer(),
        )
        _train(trainer, turn)


def _distillkit_rows(compressor: Any, folder: str) -> Dataset:
    """Tokens and what it keeps of a position, on disk as it reads them; positions of the prompt are kept, too."""
    rows = kept()
    shape = (STEPS * ROWS, RESPONSE, K)
    ids = torch.zeros(STEPS * ROWS, LENGTH, K, dtype=torch.int64)
    logprobs = torch.zeros(STEPS * ROWS, LENGTH, K)
    ids[:], logprobs[:] = torch.arange(K), torch.full((K,), 1 / (2 * K)).log()
    ids[:, PROMPT - 1 : -1] = torch.from_numpy(rows.ids.reshape(shape)).long()
    logprobs[:, PROMPT - 1 : -1] = torch.from_numpy(rows.logprobs.reshape(shape))
    inputs = tokens().flatten(0, 1)
    # Its mask is not shifted: a label says that the position before it is not learned.
    labels = inputs.clone()
    labels[:, : PROMPT - 1] = labels[:, -1] = -100
    columns = {"input_ids": inputs, "labels": labels, **compressor.compress_from_sparse(ids, logprobs)}
    Dataset.from_dict({name: column.tolist() for name, column in columns.items()}).save_to_disk(f"{folder}/rows")
    return Dataset.load_from_disk(f"{folder}/rows")


def _settings() -> dict[str, Any]:
    """The same for all trainers: pure bfloat16, one batch a step, no recomputation, nothing written."""
    return {
        "max_steps": STEPS,
        "per_device_train_batch_size": ROWS,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "bf16": False,
        "learning_rate": LEARNING_RATE,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "remove_unused_columns": False,
        "use_cpu": not torch.cuda.is_available(),
    }


def _train(trainer: Any, turn: Turn) -> None:
    """Train, a step at a time; reading what a step learns from belongs to it."""
    # Imported late: it brings DeepSpeed, which our own step must import after it has set the environment.
    from transformers import TrainerCallback

    class Turns(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turn.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turn.end()

    trainer.add_callback(Turns())
    trainer.train()


def _prompts() -> Dataset:
    """A data set of prompts that are read and not used."""
    return Dataset.from_dict({"prompt": ["nothing"] * ROWS * STEPS})


def _tokenizer() -> PreTrainedTokenizerFast:
    """The smallest tokenizer that the trainers accept."""
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2, "nothing": 3}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
