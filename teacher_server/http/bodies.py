"""The JSON that the door takes and gives: every field has a type, every number has bounds, and nothing else is let in.

Types are strict: `true` is not the integer 1 and `"3"` is not 3, because whoever sends them means something else than
what would be asked. What a body cannot know by itself (the vocabulary, the longest sequence, how much is too much) is
checked by `teacher_server.http.served`.

A row of an answer holds the arrays of `teacher_server.http.wire` as lists. JSON has no infinity: a log-probability of
-inf is null. Numbers as text take some fifty times the bytes and the time of the binary body: this is for people and
for small answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from cache.canonical import MAX_TOKEN_ID
from cache.protocols import FailureCode
from cache.records import MASS_TOLERANCE, Finish

MOST_STOP_IDS = 256
GRAMMAR_CHARACTERS = 65_536
NAME_CHARACTERS = 200

BY_IDS, BY_TEXT, BY_MESSAGES, BY_WORDS = "by token ids", "by text", "by messages", "by words"
"""Tags of the ways to say a sequence; pydantic names them in the place of an error."""

BY_MANY_IDS, BY_MANY_TEXTS = "by lists of token ids", "by texts"
"""Tags of the ways to say several at once."""

WAYS = frozenset({BY_IDS, BY_TEXT, BY_MESSAGES, BY_WORDS, BY_MANY_IDS, BY_MANY_TEXTS})
"""All tags, which no client wrote."""

TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
TokenIds = list[TokenId]
Count = Annotated[int, Field(ge=1, le=MAX_TOKEN_ID)]
LogProb = Annotated[float, Field(le=MASS_TOLERANCE)] | None
"""In nats; null is -inf. Rounding may leave a certain token a little above 0."""


def _sound(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no character") from None
    return text


Text = Annotated[str, AfterValidator(_sound)]
"""JSON can spell halves of characters, which no tokenizer reads."""

TeacherName = Annotated[str, Field(max_length=NAME_CHARACTERS)]


Temperature = Annotated[float, Field(ge=0.0, le=100.0)]
TopP = Annotated[float, Field(gt=0.0, le=1.0)]
MinP = Annotated[float, Field(ge=0.0, le=1.0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]
RepetitionPenalty = Annotated[float, Field(gt=0.0, le=100.0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
StopIds = Annotated[TokenIds, Field(max_length=MOST_STOP_IDS)]


class Body(BaseModel):
    """What all bodies have in common."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ChatMessage(Body):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text


class ScoredIds(Body):
    """A sequence as token ids; those from `prompt_len` on are scored."""

    token_ids: TokenIds
    prompt_len: Count


class ScoredText(Body):
    """A sequence as text; the tokens of the completion are scored."""

    prompt: Text
    completion: Text


class ScoredMessages(Body):
    """A conversation whose last message is the assistant's, which is scored."""

    messages: Annotated[list[ChatMessage], Field(min_length=2)]


class Sampling(Body):
    """How an answer is written; see `cache.records.GenerateRequest`. Without `stop_ids` the teacher's own are taken."""

    max_new_tokens: Count
    stop_ids: StopIds | None = None
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)] = 0
    min_p: MinP = 0.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    sampling_seed: Seed = 0
    replicate: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)] = 0
    grammar: Annotated[Text, Field(max_length=GRAMMAR_CHARACTERS)] = ""


class WrittenAfterIds(Sampling):
    """A prompt as token ids."""

    prompt_ids: TokenIds


class WrittenAfterText(Sampling):
    """A prompt as text, which goes to the teacher as it stands."""

    prompt: Text


class WrittenAfterMessages(Sampling):
    """A conversation that the teacher goes on with, by its chat template."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]


def _way(given: Any) -> str | None:
    """Which way a row is said, by the first name that tells."""
    for names, way in ((("token_ids", "prompt_ids"), BY_IDS), (("messages",), BY_MESSAGES), (("prompt",), BY_TEXT)):
        if isinstance(given, Mapping) and any(name in given for name in names):
            return way
    return None


ScoredRow = Annotated[
    Annotated[ScoredIds, Tag(BY_IDS)]
    | Annotated[ScoredText, Tag(BY_TEXT)]
    | Annotated[ScoredMessages, Tag(BY_MESSAGES)],
    Discriminator(
        _way,
        custom_error_type="which_sequence",
        custom_error_message="give token_ids and prompt_len, or prompt and completion, or messages",
    ),
]
WrittenRow = Annotated[
    Annotated[WrittenAfterIds, Tag(BY_IDS)]
    | Annotated[WrittenAfterText, Tag(BY_TEXT)]
    | Annotated[WrittenAfterMessages, Tag(BY_MESSAGES)],
    Discriminator(
        _way, custom_error_type="which_prompt", custom_error_message="give prompt_ids, or prompt, or messages"
    ),
]


class ScoreBody(Body):
    """`POST /v1/score`: what the teacher believes about given sequences, with `k` log-probabilities a position."""

    teacher: TeacherName | None = None
    k: Count
    requests: Annotated[list[ScoredRow], Field(min_length=1)]


class GenerateBody(Body):
    """`POST /v1/generate`: what the teacher writes; `k` = 0 asks for the text alone."""

    teacher: TeacherName | None = None
    k: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
    requests: Annotated[list[WrittenRow], Field(min_length=1)]


class AnswerRow(Body):
    """One answer. Row i of every per-response list belongs to token `prompt_len` + i; they are absent where k = 0.

    `cached` tells that nobody was asked for it. `text` is the response as text, where the teacher's tokenizer is here.
    """

    token_ids: TokenIds
    prompt_len: Count
    finish: Finish
    cached: bool
    topk_ids: list[TokenIds] | None = None
    topk_logprobs: list[list[LogProb]] | None = None
    target_logprobs: list[LogProb] | None = None
    tail_logmass: list[LogProb] | None = None
    text: str | None = None


class RowError(Body):
    """Why there is no answer to one row; the others have theirs."""

    code: FailureCode
    reason: str


class FailedRow(Body):
    """A row that the teacher could not answer."""

    error: RowError


class AnswerBody(Body):
    """The rows of an answer, in the order of the requests, and the digest of the teacher that gave them."""

    teacher: str
    identity: str
    rows: list[AnswerRow | FailedRow]


class TeacherBody(Body):
    """One teacher: who it is, and what it can be asked.

    `fields` are those that its digest is over; `verifiable` tells that they are digests of weights and no mere names.
    `vocab_sha256` is over which token every id means, where the tokenizer is known.
    """

    name: str
    identity: str
    fields: dict[str, str | int | None]
    verifiable: bool
    vocab: Count
    most_k: Annotated[int, Field(ge=0)]
    max_model_len: Count
    stop_ids: TokenIds
    label: str
    licence: str | None
    vocab_sha256: str | None = None


class StateBody(Body):
    """`GET /healthz` and `GET /readyz`, where all is well."""

    state: Literal["alive", "ready"]


class ErrorFacts(Body):
    """What went wrong: the status again, a code for programs, a line for people, and what to look for in the logs."""

    status: Annotated[int, Field(ge=400, le=599)]
    code: str
    reason: str
    request_id: str


class ErrorBody(Body):
    """Every answer that is none."""

    error: ErrorFacts


OpenAiErrorType = Literal[
    "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "server_error"
]


class OpenAiErrorFacts(ErrorFacts):
    """The same for clients of OpenAI's protocol, who look for it by other names: `message` is the reason."""

    message: str
    type: OpenAiErrorType
    param: str | None


class OpenAiErrorBody(Body):
    """Every answer that is none, on the routes of OpenAI's protocol: the door's fields and OpenAI's."""

    error: OpenAiErrorFacts
