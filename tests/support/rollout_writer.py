"""Who writes rollouts for a worker group under test: plain transformers models, token by token, in a thread of the test.

It shares no code with the engines that write them in earnest, and computes every log-probability itself.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from student_builders import TOP_K, VOCAB
from training_jobs import IDENTITY
from transformers import AutoModelForCausalLM

from cache.keys import sequence_key
from cache.records import TeacherRecord, tail_logmass
from cache.store import TeacherCache
from student_train.handoff.broadcast import Offer, Receiver
from student_train.handoff.rollouts import Rollout, RolloutExchange
from student_train.job import TrainJob

EOS = 2

ONE_AT_A_TIME = threading.Lock()
"""Loading a model with transformers changes global state of torch for a moment."""


def logprobs_of(model_dir: Path, tokens: list[int]) -> np.ndarray:
    """Log-probabilities [T, V] of what follows each token."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    return logits.log_softmax(dim=1).numpy()


class Writer:
    """Follows a job and writes its rollouts as soon as the weights for them are there."""

    def __init__(self, job: TrainJob, teacher_dir: Path, *, ahead: int = 0, versions_off: int = 0) -> None:
        assert job.stage.rollout is not None
        self.written: list[Rollout] = []
        self._job, self._config, self._teacher_dir = job, job.stage.rollout, teacher_dir
        self._ahead, self._versions_off = ahead, versions_off
        self._exchange = RolloutExchange(job.work_dir)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        number = 0
        while not self._over.wait(0.02) and number < self._config.count:
            version = max(0, number - self._ahead)
            if self._exchange.has_rollout(number):
                number += 1
            elif self._exchange.has_policy(version):
                with ONE_AT_A_TIME:
                    self._write(number, version=version)

    def _write(self, number: int, *, version: int) -> None:
        policy_dir = self._job.model_dir if version == 0 else self._received(version)
        draw = np.random.default_rng((number, 7))
        records, sources, engine = [], [], []
        policy = AutoModelForCausalLM.from_pretrained(policy_dir, dtype=torch.float32)
        teacher = AutoModelForCausalLM.from_pretrained(self._teacher_dir, dtype=torch.float32)
        for _ in range(self._config.prompts):
            tokens = draw.integers(3, VOCAB, size=4).tolist()
            coins, own = [], []
            while len(tokens) < 4 + self._config.max_new_tokens and tokens[-1] != EOS:
                coins.append(bool(draw.random() < self._config.alpha))
                q, p = (_next(model, tokens) for model in (policy, teacher))
                # Of the rows that both matrices have; what they have beyond the tokens nobody can write down.
                row = np.exp((p if coins[-1] else q)[:VOCAB])
                tokens.append(int(draw.choice(VOCAB, p=row / row.sum())))
                own.append(np.nan if coins[-1] else q[tokens[-1]])
            records.append(_scored(teacher, tokens, version=version))
            sources.append(np.array(coins))
            engine.append(np.array(own, dtype=np.float32))
        cache = TeacherCache.open(self._job.cache_root, IDENTITY)
        cache.put(records, vocab=VOCAB, encoding="topk-f16", rollout="test")
        rollout = Rollout(
            number=number,
            version=version - self._versions_off,
            view=cache.view([record.key for record in records], dataset=f"rollout-{number}", k=TOP_K),
            samples=np.arange(len(records)),
            drawn_by_teacher=np.concatenate(sources),
            engine_logprobs=np.concatenate(engine),
            metrics={"rollout/scoring_passes": 1.0},
        )
        self.written.append(rollout)
        self._exchange.commit(rollout)

    def _received(self, version: int) -> Path:
        """A directory with the published weights; those that are sent are written beside what the worker group offers."""
        policy_dir = self._exchange.policy(version)
        offer = Offer.read(policy_dir)
        if offer is None:
            return policy_dir
        with self._exchange.meeting(version, receivers=1) as meeting:
            weights = dict(Receiver(meeting, 1, 2, offer.tensors)(0, torch.device("cpu")))
        save_file(weights, policy_dir / "model.safetensors", metadata={"format": "pt"})
        shutil.copy(self._job.model_dir / "config.json", policy_dir)
        return policy_dir


def _next(model: torch.nn.Module, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, -1].double()
    row: np.ndarray = logits.log_softmax(dim=0).numpy()
    return row


def _scored(teacher: torch.nn.Module, tokens: list[int], *, version: int) -> TeacherRecord:
    with torch.no_grad():
        logits = teacher(torch.tensor([tokens])).logits[0, 3:-1, :VOCAB].double()
    logprobs, answers = logits.log_softmax(dim=1).numpy(), np.array(tokens[4:])
    order = np.argsort(-logprobs, axis=1, kind="stable")
    top = np.take_along_axis(logprobs, order[:, :TOP_K], axis=1)
    ids = np.array(tokens, dtype=np.int32)
    return TeacherRecord(
        key=sequence_key(IDENTITY.digest(), ids, 4),
        token_ids=ids,
        prompt_len=4,
        finish="given",
        origin="prefill",
        policy_version=version,
        topk_ids=order[:, :TOP_K].astype(np.int32),
        topk_logprobs=top.astype(np.float32),
        target_logprobs=logprobs[np.arange(len(answers)), answers].astype(np.float32),
        target_ranks=(np.argmax(order == answers[:, None], axis=1) + 1).astype(np.int32),
        tail_logmass=tail_logmass(top, vocab=VOCAB),
    )
