"""The JSON of OpenAI's protocol that the door gives: whole answers, chunks of streamed ones, and the list of models.

Log-probabilities are in nats at temperature 1, over the whole vocabulary, whatever an answer was sampled with. JSON has
no infinity: `LEAST` stands for what is below it, as with OpenAI.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cache.records import MASS_TOLERANCE
from teacher_server.http.bodies import Body, TokenIds

LEAST = -9999.0
"""The smallest log-probability that is told."""

Told = Annotated[float, Field(ge=LEAST, le=MASS_TOLERANCE)]
FinishReason = Literal["stop", "length"]


class PromptToken(Body):
    """What the teacher believed about a token at a place of the prompt, as vLLM tells it."""

    logprob: Told
    rank: Annotated[int, Field(ge=1)]
    decoded_token: str


PromptLogProbs = list[dict[str, PromptToken] | None]
"""By token id, for each token of the prompt; the first one follows nothing, so nothing was believed about it."""


class CompletionLogProbs(Body):
    """Token by token; `top_logprobs` holds the token itself besides those that are the most likely."""

    tokens: list[str]
    token_logprobs: list[Told | None]
    top_logprobs: list[dict[str, Told] | None]
    text_offset: list[int]


class CompletionChoice(Body):
    """One answer to one prompt, or a part of it; `token_ids` are those of `logprobs.tokens`."""

    index: int
    text: str
    logprobs: CompletionLogProbs | None
    finish_reason: FinishReason | None
    token_ids: TokenIds | None = None
    prompt_token_ids: TokenIds | None = None
    prompt_logprobs: PromptLogProbs | None = None


class TopToken(Body):
    """One token that might have come; `bytes` is null of one that stands for no text."""

    token: str
    logprob: Told
    bytes: list[int] | None


class ChatToken(TopToken):
    """One token that came, and those that were the most likely."""

    top_logprobs: list[TopToken]


class ChatLogProbs(Body):
    """Token by token."""

    content: list[ChatToken]


class AnswerMessage(Body):
    """What the assistant said."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Body):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogProbs | None
    finish_reason: FinishReason
    token_ids: TokenIds | None = None


class Delta(Body):
    """What a chunk adds to a message; what is null is not sent."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(Body):
    """A part of an answer."""

    index: int
    delta: Delta
    logprobs: ChatLogProbs | None
    finish_reason: FinishReason | None
    token_ids: TokenIds | None = None


class Usage(Body):
    """Tokens of each prompt once, and those that the teacher wrote, what stands behind a stop text included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerHead(Body):
    """How every answer begins. `system_fingerprint` is the beginning of the teacher's digest."""

    id: str
    object: Literal["text_completion", "chat.completion", "chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str


class CompletionAnswer(AnswerHead):
    """`POST /v1/completions`; a chunk has the same form."""

    choices: list[CompletionChoice]
    usage: Usage | None = None


class ChatPrompt(Body):
    """What is told of the prompt of a chat, as vLLM does."""

    prompt_token_ids: TokenIds | None = None
    prompt_logprobs: PromptLogProbs | None = None


class ChatAnswer(AnswerHead, ChatPrompt):
    """`POST /v1/chat/completions`."""

    choices: list[ChatChoice]
    usage: Usage


class ChatChunk(AnswerHead):
    """A part of one."""

    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class ModelFacts(Body):
    """A teacher as a model; `max_model_len` as vLLM tells it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    max_model_len: int


class ModelsBody(Body):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelFacts]
