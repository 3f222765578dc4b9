"""The JSON of OpenAI's protocol that the door takes: `POST /v1/completions` and `POST /v1/chat/completions`.

Every field does what it says or is refused by its name: one that would be ignored may hold the value that means
nothing (`Unserved`), and no other. What only labels a request (`user`, `metadata`) is let in. null is a field that is
not given. Beside OpenAI's own fields stand those of vLLM's server that the door can do.

Source: the published reference of both protocols, and what `openai` 3.52 and lm-evaluation-harness 0.4.13 send.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Tag
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from cache.canonical import MAX_TOKEN_ID
from teacher_server.http.bodies import (
    BY_IDS,
    BY_MANY_IDS,
    BY_MANY_TEXTS,
    BY_TEXT,
    Body,
    Count,
    MinP,
    Penalty,
    RepetitionPenalty,
    Seed,
    StopIds,
    TeacherName,
    Temperature,
    Text,
    TokenIds,
    TopP,
)

MOST_ANSWERS = 128
"""Of `n`."""

MOST_STOPS = 16
"""OpenAI takes four; lm-evaluation-harness sends all that its task has, and the end token besides."""

Amount = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Answers = Annotated[int, Field(ge=1, le=MOST_ANSWERS)]
NucleusSize = Annotated[int, Field(ge=-1, le=MAX_TOKEN_ID)]
"""vLLM's `top_k`, whose -1 is every token; so is 0."""

StopText = Annotated[Text, Field(min_length=1)]


class Unserved:
    """Of a field that is not served: null and the values given here mean nothing and are let in, all others refused."""

    def __init__(self, values: Sequence[Any] = ()) -> None:
        self._told = [None, *values]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": self._told}

    def _check(self, given: Any) -> Any:
        # 0 is not False, whatever Python says.
        if not any(given == value and type(given) is type(value) for value in self._told):
            raise PydanticCustomError("not_served", "this door does not do that: leave it out")
        return given


Nothing = Annotated[Any, Unserved()]
Off = Annotated[Any, Unserved([False])]
On = Annotated[Any, Unserved([True])]
NoList = Annotated[Any, Unserved([[]])]
NoObject = Annotated[Any, Unserved([{}])]


def _one_or_many(given: Any) -> str | None:
    """Whether a prompt is a text, token ids, or a list of either."""
    if isinstance(given, str):
        return BY_TEXT
    if not isinstance(given, list) or not given:
        return None
    if isinstance(given[0], list):
        return BY_MANY_IDS
    return BY_MANY_TEXTS if isinstance(given[0], str) else BY_IDS


def _text_or_many(given: Any) -> str | None:
    if isinstance(given, str):
        return BY_TEXT
    return BY_MANY_TEXTS if isinstance(given, list) else None


Prompt = Annotated[
    Annotated[Text, Tag(BY_TEXT)]
    | Annotated[TokenIds, Field(min_length=1), Tag(BY_IDS)]
    | Annotated[list[Text], Field(min_length=1), Tag(BY_MANY_TEXTS)]
    | Annotated[list[TokenIds], Field(min_length=1), Tag(BY_MANY_IDS)],
    Discriminator(
        _one_or_many,
        custom_error_type="which_prompt",
        custom_error_message="give a text, token ids, or a list of either that is not empty",
    ),
]

Stop = Annotated[
    Annotated[StopText, Tag(BY_TEXT)] | Annotated[list[StopText], Field(max_length=MOST_STOPS), Tag(BY_MANY_TEXTS)],
    Discriminator(_text_or_many, custom_error_type="which_stop", custom_error_message="give a text or a list of texts"),
]


class StreamOptions(Body):
    """How an answer is streamed."""

    include_usage: bool | None = None
    include_obfuscation: Off = None
    continuous_usage_stats: Off = None


class AskedBody(Body):
    """What both routes take. `model` is the name of a teacher."""

    model: TeacherName
    n: Answers | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # Of vLLM's server.
    top_k: NucleusSize | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    stop_token_ids: StopIds | None = None
    ignore_eos: bool | None = None
    prompt_logprobs: Amount | None = None
    return_token_ids: bool | None = None

    # Labels.
    user: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "default"] | None = None

    # Not served.
    logit_bias: NoObject = None
    store: Off = None
    allowed_token_ids: Nothing = None
    bad_words: NoList = None
    include_stop_str_in_output: Off = None
    length_penalty: Annotated[Any, Unserved([1.0, 1])] = None
    logits_processors: NoList = None
    min_tokens: Annotated[Any, Unserved([0])] = None
    priority: Annotated[Any, Unserved([0])] = None
    return_tokens_as_token_ids: Off = None
    skip_special_tokens: On = None
    spaces_between_special_tokens: On = None
    truncate_prompt_tokens: Nothing = None
    use_beam_search: Off = None
    response_format: Annotated[Any, Unserved([{"type": "text"}])] = None
    structured_outputs: Nothing = None


class CompletionBody(AskedBody):
    """`POST /v1/completions`."""

    prompt: Prompt
    max_tokens: Amount | None = None
    logprobs: Amount | None = None
    echo: bool | None = None
    best_of: Answers | None = None

    add_special_tokens: On = None
    suffix: Annotated[Any, Unserved([""])] = None


class TextPart(Body):
    """A piece of a message's content."""

    type: Literal["text"]
    text: Text


Content = Annotated[
    Annotated[Text, Tag(BY_TEXT)] | Annotated[list[TextPart], Field(min_length=1), Tag(BY_MANY_TEXTS)],
    Discriminator(
        _text_or_many, custom_error_type="which_content", custom_error_message="give a text or a list of text parts"
    ),
]


class AskedMessage(Body):
    """One turn of a conversation; `developer` is another word for `system`."""

    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: Content
    name: Nothing = None
    refusal: Nothing = None
    audio: Nothing = None
    tool_calls: NoList = None
    tool_call_id: Nothing = None
    function_call: Nothing = None


class ChatBody(AskedBody):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[AskedMessage], Field(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Amount | None = None

    add_generation_prompt: On = None
    add_special_tokens: Off = None
    audio: Nothing = None
    chat_template: Nothing = None
    chat_template_kwargs: NoObject = None
    continue_final_message: Off = None
    documents: NoList = None
    echo: Off = None
    function_call: Annotated[Any, Unserved(["none", "auto"])] = None
    functions: NoList = None
    modalities: Annotated[Any, Unserved([["text"]])] = None
    moderation: Nothing = None
    parallel_tool_calls: Annotated[Any, Unserved([True, False])] = None
    prediction: Nothing = None
    prompt_cache_options: Nothing = None
    prompt_cache_retention: Nothing = None
    reasoning_effort: Nothing = None
    tool_choice: Annotated[Any, Unserved(["none", "auto"])] = None
    tools: NoList = None
    verbosity: Nothing = None
    web_search_options: Nothing = None
