"""What a model makes of pairs of sentences: the log-probability of each, behind its context."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from cache import ScoreRequest
from configs import ModelError
from evaluation.side_effects.preferences import SentencePair
from orchestration.audits.beliefs import Beliefs
from orchestration.comparison.continuations import encoded, split_pair
from orchestration.comparison.finished_models import FinishedModel


def pair_logprobs(
    pairs: Sequence[SentencePair], *, model: FinishedModel, tokenizer: PreTrainedTokenizerBase, beliefs: Beliefs
) -> tuple[list[float], list[float]]:
    """Of each pair the log-probability in nats of the stereotyped sentence, and of the other one.

    Raises:
        ModelError: the model cannot be loaded, or its tokenizer has nothing that a text could begin with.
    """
    prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if prefix is None:
        raise ModelError(f"{model.name}: its tokenizer has neither BOS nor EOS, to begin a text with: add one")
    sides = ([pair.stereotyped for pair in pairs], [pair.other for pair in pairs])
    stereotyped, other = (
        [_request(pair.context, text, tokenizer, prefix=int(prefix)) for pair, text in zip(pairs, side, strict=True)]
        for side in sides
    )
    found = [float(each.sum(dtype="float64")) for each in beliefs.of(model, [*stereotyped, *other])]
    return found[: len(pairs)], found[len(pairs) :]


def _request(context: str, text: str, tokenizer: PreTrainedTokenizerBase, *, prefix: int) -> ScoreRequest:
    if not context:
        ids = encoded(tokenizer, text)
        # A tokenizer that begins every text with BOS has done so.
        ids = ids if ids[:1] == (prefix,) else (prefix, *ids)
        return ScoreRequest(ids, 1)
    before, more = split_pair(tokenizer, context, f" {text}", prefix=prefix)
    return ScoreRequest((*before, *more), len(before))
