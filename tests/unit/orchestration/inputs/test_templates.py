"""Chat templates: what they render, where an answer ends, and what becomes of one that does not end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from configs import DataError
from configs.schema import DataConfig
from orchestration.inputs import templates
from orchestration.inputs.prompt_reader import ROWS_AT_ONCE
from orchestration.inputs.prompt_splits import load_prompts
from orchestration.inputs.prompts import Prompt, PromptSet
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.templates import ChatTemplates, Unrendered

GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN = """
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools' }}
    {%- for tool in tools %}{{- "\\n" + (tool | tojson) }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.last or message.reasoning_content %}
            {{- '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- message.content or '' }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>tool ' + (message.name or '') + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
LLAMA = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}'
    "{%- endif %}{{- 'Today Date: ' + date_string + '<|eot|>' }}"
    "{%- for message in messages %}{{- '<|' + message.role + '|>' + message.content + '<|eot|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)
THINKER = (  # opens an answer with room for thoughts, and writes one without them
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}"
    "{% if m.role == 'assistant' %}<|eot|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
BARE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
MARKS = ["<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>", "<|eot|>"]


def tokenizer(template: str | dict[str, str]) -> PreTrainedTokenizerFast:
    made = byte_tokenizer()
    made.add_tokens(MARKS, special_tokens=True)
    made.chat_template = template
    return made


def jsonl(path: Path, *rows: Mapping[str, Any]) -> dict[str, str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path)}


def config(folder: Path, *rows: Mapping[str, Any], **more: Any) -> DataConfig:
    """Train rows that are given; dev and test hold one each of the same kind."""
    field = "messages" if any("messages" in row for row in rows) else "prompt"
    splits = {"train": jsonl(folder / "train.jsonl", *rows)}
    for split in ("dev", "test"):
        talk = [{"role": "user", "content": split}, {"role": "assistant", "content": "yes"}]
        row = {"messages": talk, "tools": None} if field == "messages" else {"prompt": split, "answer": "yes"}
        splits[split] = jsonl(folder / f"{split}.jsonl", row)
    named = {"messages_field": "messages"} if field == "messages" else {"response_field": "answer"}
    return DataConfig.model_validate({**splits, **named, "max_prompt_tokens": 1000, **more})


def load(data: DataConfig, using: PreTrainedTokenizerFast, *, stops: tuple[str, ...]) -> PromptSet:
    ids = tuple(using.convert_tokens_to_ids(stop) for stop in stops)
    return load_prompts(data, tokenizer=using, stop_ids=ids, max_new_tokens=500)


def gold(prompt: Prompt, using: PreTrainedTokenizerFast) -> str:
    assert prompt.gold_ids is not None
    return str(using.decode(prompt.gold_ids))


def asked(prompt: Prompt, using: PreTrainedTokenizerFast) -> str:
    return str(using.decode(prompt.prompt_ids))


@pytest.mark.parametrize(
    ("template", "stops", "expected"),
    [
        (GEMMA, ("<|eos|>", "<end_of_turn>"), "fine<end_of_turn>"),
        (LLAMA, ("<|eos|>", "<|eot|>"), "fine<|eot|>"),
        (QWEN, ("<|eos|>", "<|im_end|>"), "<think>\n\n</think>\n\nfine<|im_end|>"),
        (THINKER, ("<|eot|>",), "fine<|eot|>"),
        (BARE, ("<|eos|>",), "fine<|eos|>"),
    ],
)
def test_a_gold_answer_ends_where_the_template_ends_a_turn(
    template: str, stops: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    using = tokenizer(template)
    data = config(tmp_path, {"prompt": "how?", "answer": "fine"})
    (prompt,) = load(data, using, stops=stops).splits["train"]
    assert gold(prompt, using) == expected
    talk = [{"role": "user", "content": "how?"}]
    said = using.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    # transformers tells Llama's template the day; ours is pinned.
    assert template == LLAMA or asked(prompt, using) == said


def test_a_turn_end_at_which_the_teacher_does_not_stop_is_refused(tmp_path: Path) -> None:
    data = config(tmp_path, {"prompt": "how?", "answer": "fine"})
    with pytest.raises(DataError, match=r"ends an answer with <end_of_turn>.*add its id \d+ to eos_token_id"):
        load(data, tokenizer(GEMMA), stops=("<|eos|>",))


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome", "unit": None}}}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Ask the tool."},
    {"role": "tool", "name": "weather", "content": "sunny", "tool_call_id": "1"},
    {"role": "assistant", "content": "It is sunny.", "reasoning_content": "The tool says so."},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("turns", [2, 4])
@pytest.mark.parametrize("given", [TOOLS, json.dumps(TOOLS), None, []])
def test_calls_names_thoughts_and_tools_are_rendered_as_transformers_does(
    turns: int, given: Any, tmp_path: Path
) -> None:
    using = tokenizer(QWEN)
    data = config(tmp_path, {"messages": TALK[:turns], "tools": given}, tools_field="tools")
    (prompt,) = load(data, using, stops=("<|im_end|>",)).splits["train"]
    talk = [{key: value for key, value in message.items() if value is not None} for message in TALK[:turns]]
    tools = TOOLS if given else None
    before = using.apply_chat_template(talk[:-1], tools=tools, tokenize=False, add_generation_prompt=True)
    whole = using.apply_chat_template(talk, tools=tools, tokenize=False)
    assert asked(prompt, using) == before
    assert before + gold(prompt, using) + "\n" == whole
    if turns == 2:
        assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "unit": null}}' in gold(prompt, using)
        assert gold(prompt, using).startswith("<think>\nAsk the tool.\n</think>")
    else:
        assert "<|im_start|>tool weather\nsunny<|im_end|>" in asked(prompt, using)


@pytest.mark.parametrize(
    ("message", "tools", "reason"),
    [
        ({"role": "assistant", "content": "x", "tool_calls": [CALL]}, None, "the chat template leaves out tool_calls"),
        ({"role": "assistant", "content": "x", "reasoning_content": "r"}, None, "leaves out reasoning_content"),
        ({"role": "user", "content": "x"}, TOOLS, "leaves out tools"),
        ({"role": "user", "content": "x"}, "[{", "tools that are not JSON"),
        ({"role": "user", "content": "x"}, {"a": 1}, "tools that are not a list of JSON objects"),
    ],
)
def test_what_a_template_would_leave_out_sets_the_row_aside(
    message: dict[str, Any], tools: Any, reason: str, tmp_path: Path
) -> None:
    user = {"role": "user", "content": "q"}
    data = config(
        tmp_path,
        {"messages": [user], "tools": None},
        {"messages": [user, message], "tools": tools},
        tools_field="tools",
    )
    found = load(data, tokenizer(GEMMA), stops=("<end_of_turn>",))
    assert len(found.splits["train"]) == 1
    assert [reason in each.reason for each in found.rejected] == [True]


@pytest.mark.parametrize(
    "part", [{"tool_calls": [{"function": {"name": "x", "arguments": {"<|im_end|>": 1}}}]}, {"name": "<|im_end|>"}]
)
def test_a_control_token_in_any_part_of_a_message_sets_the_row_aside(part: dict[str, Any], tmp_path: Path) -> None:
    bad = {"role": "assistant", "content": "x", **part}
    talks = [
        [{"role": "user", "content": "q"}],
        [{"role": "user", "content": "q"}, bad, {"role": "user", "content": "q"}],
    ]
    found = load(config(tmp_path, *({"messages": talk} for talk in talks)), tokenizer(QWEN), stops=("<|im_end|>",))
    assert [each.reason for each in found.rejected] == ["special token <|im_end|> written as text"]


def test_a_template_is_given_what_the_configuration_says(tmp_path: Path) -> None:
    using = tokenizer(QWEN)
    row = {"prompt": "q", "answer": "a"}
    (prompt,) = load(
        config(tmp_path, row, template_kwargs={"enable_thinking": False}), using, stops=("<|im_end|>",)
    ).splits["train"]
    assert asked(prompt, using) == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert gold(prompt, using) == "a<|im_end|>"
    with pytest.raises(DataError, match=r"data\.template_kwargs\.enable_thinkng: .* does not use it, only .*enable_th"):
        load(config(tmp_path, row, template_kwargs={"enable_thinkng": False}), using, stops=("<|im_end|>",))


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_the_day_of_a_template_is_pinned(zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    using, row = tokenizer(LLAMA), {"prompt": "q", "answer": "a"}
    (default,) = load(config(tmp_path, row), using, stops=("<|eot|>",)).splits["train"]
    assert asked(default, using).startswith("<|bos|>Today Date: 26 Jul 2024<|eot|>")
    data = config(tmp_path, row, template_date="2031-02-03")
    assert "Today Date: 03 Feb 2031<|eot|>" in asked(load(data, using, stops=("<|eot|>",)).splits["train"][0], using)


NAMED = {"default": "D {{ messages[0].content }}", "tool_use": "T {{ tools | tojson }}", "rag": "R"}


@pytest.mark.parametrize(
    ("held", "wanted", "tools", "expected"),
    [
        (NAMED, None, None, "D q"),
        (NAMED, None, TOOLS, f"T {json.dumps(TOOLS)}"),
        (NAMED, "rag", TOOLS, "R"),
        (NAMED, "other", None, "data.chat_template=other: the teacher's tokenizer has only default, rag, tool_use"),
        ({"rag": "R"}, None, None, "has several chat templates: choose data.chat_template from rag"),
        ("S", None, TOOLS, "S"),
        ("S", "default", None, "S"),
        (None, None, None, "has no chat template: use alpaca or raw"),
    ],
)
def test_one_of_several_templates_is_chosen(
    held: Any, wanted: str | None, tools: Any, expected: str, tmp_path: Path
) -> None:
    data = config(tmp_path, {"prompt": "q"}, chat_template=wanted)
    with ChatTemplates(data, tokenizer(held)) as chosen:
        try:
            told = chosen.render([{"role": "user", "content": "q"}], tools=tools, opens_answer=True)
        except DataError as error:
            assert expected in str(error) and "\n" not in str(error)
        else:
            assert told == expected


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "SECONDS", 0.25)
    monkeypatch.setattr(templates, "MEMORY_BYTES", 120 * 2**20)
    monkeypatch.setattr(templates, "PATIENCE", 2)


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("evil", "reason"),
    [
        (LOOP, "does not end within 0.25 s of processor time"),
        ("{{ 'a' * 10**10 }}", "needs more than 120 MiB of memory"),
        (
            "{% set n = messages | length + 6 %}{{ n ** (n ** 9) }}",
            "does not end within 0.25 s",
        ),  # a single operation, which no exception stops
        (
            "{% set ns = namespace(x='a') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "needs more",
        ),
        ("{% for a in range(99999) %}{{ 'a' * 999 }}{% endfor %}", "it writes more than 1,048,576 characters"),
        ("{% for a in range(10**9) %}{% endfor %}", "Range too big"),
        ("{{ messages.nothing.at.all }}", "has no attribute"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ raise_exception('\x1b[2J\u202e') }}", "\\x1b[2J\\u202e"),
        ("{{ ''.__class__.__mro__ }}", "is unsafe"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "maximum recursion depth"),
    ],
)
def test_a_template_that_fails_or_does_not_end_costs_its_row(
    evil: str, reason: str, tmp_path: Path, impatient: None
) -> None:
    template = "{% if 'evil' in messages[0].content %}" + evil + "{% endif %}{{ messages[0].content }}"
    rows = [{"prompt": "good"}, {"prompt": "evil"}, {"prompt": "good too"}]
    data = config(tmp_path, *rows, response_field=None)
    found = load(data, tokenizer(template), stops=("<|eos|>",))
    assert [prompt.text for prompt in found.splits["train"]] == ["good", "good too"]
    (row,) = found.rejected
    assert row.reason.startswith("refused by the chat template: ") and reason in row.reason


def test_rows_that_are_rendered_together_stay_themselves(tmp_path: Path, impatient: None) -> None:
    """Several times as many as are read at once; one ends the process, and one is longer than any pipe holds."""
    template = (
        "{% for m in messages %}{% if 'evil' in m.content %}" + LOOP + "{% endif %}"
        "{% if 'broken' in m.content %}{{ 1 / 0 }}{% endif %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    )
    rows = [{"prompt": f"row {number}", "answer": f"say {number * 7}"} for number in range(2 * ROWS_AT_ONCE + 9)]
    rows[3]["prompt"], rows[4]["answer"], rows[ROWS_AT_ONCE]["prompt"] = "evil", "broken", "broken"
    rows[5]["prompt"] = "long " * 60_000
    using = tokenizer(template)
    found = load(config(tmp_path, *rows), using, stops=("<|eos|>",))
    reasons = {row.row: row.reason for row in found.rejected}
    assert set(reasons) == {3, 4, 5, ROWS_AT_ONCE}
    assert "does not end" in reasons[3] and "division" in reasons[4] and "prompt tokens, more than" in reasons[5]
    assert [prompt.row for prompt in found.splits["train"]] == [at for at in range(len(rows)) if at not in reasons]
    for prompt in found.splits["train"]:
        assert asked(prompt, using) == f"<|user|>row {prompt.row}"
        assert gold(prompt, using).startswith(f"<|assistant|>say {prompt.row * 7}")


def test_who_is_rendered_just_before_a_process_ends_is_not_blamed(tmp_path: Path, impatient: None) -> None:
    """The answers of its last moment are lost with it, and more rows than may use up their time stand there."""
    template = "{% if 'evil' in messages[0].content %}" + LOOP + "{% endif %}{{ messages[0].content }}"
    rows = [{"prompt": f"row {number}"} for number in range(40)]
    rows[7]["prompt"] = "evil"
    found = load(config(tmp_path, *rows, response_field=None), tokenizer(template), stops=("<|eos|>",))
    assert [row.row for row in found.rejected] == [7]
    assert [prompt.text for prompt in found.splits["train"]] == [f"row {at}" for at in range(40) if at != 7]


def test_a_template_that_never_ends_is_given_up(tmp_path: Path, impatient: None) -> None:
    rows = [{"prompt": f"row {number}"} for number in range(1000)]
    with pytest.raises(DataError, match=r"chat template does not end within 0\.25 s.*, at 2 rows by now: mend it"):
        load(config(tmp_path, *rows, response_field=None), tokenizer(LOOP), stops=("<|eos|>",))


@pytest.mark.parametrize("text", ["{% for %}", "{{ x | nofilter }}", "{% generation %}", "{{ " + "(" * 5000])
def test_what_is_not_a_template_is_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.template=chat: the teacher's chat template cannot be used") as refused:
        load(config(tmp_path, {"prompt": "q"}, response_field=None), tokenizer(text), stops=("<|eos|>",))
    assert "\n" not in str(refused.value)


def test_chance_and_marks_of_what_the_model_writes_change_nothing(tmp_path: Path) -> None:
    text = "{% generation %}{{ range(1000) | random }}{% endgeneration %}|{% for a in [1, 2] %}{% break %}{% endfor %}"
    told = set()
    for _ in range(2):
        with ChatTemplates(config(tmp_path, {"prompt": "q"}), tokenizer(text)) as chosen:
            told |= {chosen.render([], tools=None, opens_answer=True) for _ in range(2)}
    assert len(told) == 1


PIECES = st.sampled_from(
    ["{% for m in messages %}", "{% endfor %}", "{{ m.content }}", "{{ messages }}", "{% if ", "%}", "{{", "}}", "-", " | ",
     "tojson", "x", "{% macro a(b) %}", "{% endmacro %}", "{# ", "{{ bos_token }}", "\n", "é", "(", "range(9)"]
)  # fmt: skip


@given(parts=st.lists(PIECES, max_size=12), content=st.text(max_size=9))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_template_renders_what_transformers_renders_or_says_why_not(
    parts: list[str], content: str, tmp_path: Path
) -> None:
    using = tokenizer("".join(parts) or "x")
    talk = [{"role": "user", "content": content}]
    data = config(tmp_path, {"prompt": "q"})
    with ChatTemplates(data, using) as chosen:
        try:
            told = chosen.render(talk, tools=None, opens_answer=True)
        except (DataError, Unrendered) as error:
            assert "\n" not in str(error)
            with pytest.raises(Exception):  # noqa: B017 - whatever it is, transformers has it too
                using.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        else:
            assert told == using.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
KEYS = st.sampled_from(["role", "content", "function", "name", "arguments", "type"]) | st.text(max_size=3)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system"])},
        optional={"content": st.text(max_size=9) | JSON, "tool_calls": JSON, "name": JSON, "reasoning_content": JSON},
    ),
    max_size=4,
)
ROWS = st.lists(st.tuples(MESSAGES | JSON, JSON), max_size=20)


@given(rows=ROWS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_ends_otherwise_than_as_a_prompt_or_with_a_reason(rows: list[tuple[Any, Any]], tmp_path: Path) -> None:
    good = [{"role": "user", "content": "q"}]
    data = config(
        tmp_path,
        *({"messages": talk, "tools": tools} for talk, tools in [(good, None), *rows]),
        tools_field="tools",
    )
    found = load(data, tokenizer(QWEN), stops=("<|im_end|>",))
    aside = [row for row in found.rejected if row.split == "train"]
    assert len(found.splits["train"]) + len(aside) == 1 + len(rows)
    assert all(row.reason.isprintable() and len(row.reason) <= 300 for row in aside)


def test_a_students_template_takes_what_it_has_of_its_teachers_settings() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}{{ mood }}"
    messages = [{"role": "user", "content": "hello"}]
    asked = {"template_kwargs": {"mood": "!", "enable_thinking": False}, "chat_template": "tool_use"}
    config = DataConfig.model_validate({**{split: {"path": "rows"} for split in ("train", "dev", "test")}, **asked})
    with ChatTemplates(config, tokenizer, student="students.small") as templates:
        assert templates.render(messages, tools=None, opens_answer=True) == "hello!"
    tokenizer.chat_template = None
    with (
        pytest.raises(DataError, match=r"students.small's tokenizer has no chat template"),
        ChatTemplates(config, tokenizer, student="students.small") as templates,
    ):
        templates.render(messages, tools=None, opens_answer=True)
