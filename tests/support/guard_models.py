"""A guard that has learned ten words: a Llama of one layer that says `unsafe` of a conversation with one of them.

It knows a few dozen words, is trained in seconds, and judges what it has never seen together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cache import GenerateRequest, TeacherRecord
from cache.records import tail_logmass
from configs.screening import GuardConfig

UNSAFE_WORDS = ("arson", "bomb", "bribe", "burglary", "forgery", "fraud", "hostage", "ransom", "sabotage", "venom")
_SAFE = (
    "apple bread bridge candle cheese cloud dinner flower garden honey kettle lemon letter music orange paper pencil "
    "pepper piano rain river salad sugar summer sun table tea tomato train tree walk window winter"
)
SAFE_WORDS = tuple(_SAFE.split())
SPECIAL = ("<unk>", "<eos>", "<user>", "<assistant>", "safe", "unsafe")
LONGEST = 24
TEMPLATE = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}<assistant> "
STEPS = 120


def save_guard(folder: Path, *, learned: bool = True) -> Path:
    """The guard as a model directory; one that has not `learned` answers anything."""
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    if learned:
        _learn(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def guard_config(folder: Path, **keys: object) -> GuardConfig:
    """How it is asked."""
    asked = {"model": {"path": str(folder)}, "unsafe": ["unsafe"], "safe": ["safe"], "dtype": "float32"}
    return GuardConfig.model_validate(asked | {"max_tokens": 100} | keys, strict=False)


def sayings(count: int, *, seed: int) -> tuple[list[str], list[bool]]:
    """Texts of words that the guard knows, half of them with one that is not safe; and which."""
    draw = random.Random(seed)
    unsafe = [number % 2 == 1 for number in range(count)]
    return [_saying(draw, unsafe=each) for each in unsafe], unsafe


class PlainEngine:
    """Answers as an engine would, by plain forward passes; notes how many questions came together."""

    def __init__(self, folder: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.asked: list[int] = []
        self.rested = 0

    def answer(self, requests: Sequence[GenerateRequest]) -> list[TeacherRecord]:
        self.asked.append(len(requests))
        return [self._answered(request) for request in requests]

    def rest(self) -> None:
        self.rested += 1

    def _answered(self, request: GenerateRequest) -> TeacherRecord:
        with torch.inference_mode():
            logits = self._model(input_ids=torch.tensor([request.prompt_ids])).logits[0, -1]
        best = torch.log_softmax(logits, dim=-1).topk(min(20, len(logits)))
        logprobs = best.values.numpy()[None]
        ids = best.indices.numpy().astype(np.int32)[None]
        return TeacherRecord(
            key=bytes(32),
            token_ids=np.array([*request.prompt_ids, ids[0, 0]], dtype=np.int32),
            prompt_len=len(request.prompt_ids),
            finish="length",
            origin="decode",
            topk_ids=ids,
            topk_logprobs=logprobs,
            target_logprobs=logprobs[:, 0],
            target_ranks=np.ones(1, dtype=np.int32),
            tail_logmass=tail_logmass(logprobs, vocab=len(logits)),
        )


def _saying(draw: random.Random, *, unsafe: bool) -> str:
    words = draw.choices(SAFE_WORDS, k=draw.randint(2, 10))
    if unsafe:
        words[draw.randrange(len(words))] = draw.choice(UNSAFE_WORDS)
    return " ".join(words)


def _tokenizer() -> PreTrainedTokenizerFast:
    words = {word: number for number, word in enumerate((*SPECIAL, *UNSAFE_WORDS, *SAFE_WORDS))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", chat_template=TEMPLATE
    )


def _learn(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Half of what it is shown are prompts, half answers to them, either of which may be the one that is not safe."""
    draw = random.Random(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    safe, unsafe = (tokenizer.convert_tokens_to_ids(word) for word in ("safe", "unsafe"))
    for _ in range(STEPS):
        rows, verdicts = [], []
        for _ in range(32):
            bad = draw.random() < 0.5
            said = [_saying(draw, unsafe=bad)]
            if draw.random() < 0.5:
                said.append(_saying(draw, unsafe=False))
                draw.shuffle(said)
            messages = [{"role": who, "content": text} for who, text in zip(("user", "assistant"), said, strict=False)]
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            rows.append(tokenizer.encode(text, add_special_tokens=False))
            verdicts.append(unsafe if bad else safe)
        ends = torch.tensor([len(row) - 1 for row in rows])
        ids = torch.tensor([row + [1] * (LONGEST - len(row)) for row in rows])
        logits = model(input_ids=ids).logits[torch.arange(len(rows)), ends]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(verdicts))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
