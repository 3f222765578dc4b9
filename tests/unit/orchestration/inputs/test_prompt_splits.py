"""From rows of data to token ids: what is used, what is set aside and why, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from configs import DataError
from configs.schema import DataConfig
from orchestration.inputs.prompt_reader import ALPACA, ROWS_AT_ONCE
from orchestration.inputs.prompt_splits import load_prompts
from orchestration.inputs.prompts import Prompt, PromptSet, Rejected
from orchestration.inputs.random_models import byte_tokenizer

Row = Mapping[str, Any]
TOKENIZER = byte_tokenizer()
DEV, TEST = [{"prompt": "dev question"}], [{"prompt": "test question"}]


def jsonl(path: Path, rows: Sequence[Row | bytes]) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def parquet(path: Path, rows: Sequence[Row | bytes]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def comma_separated(path: Path, rows: Sequence[Row | bytes]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=[str(key) for key in dict.fromkeys(k for row in rows for k in row)])
        writer.writeheader()
        writer.writerows([row for row in rows if isinstance(row, Mapping)])
    return path


WRITERS = {".jsonl": jsonl, ".parquet": parquet, ".csv": comma_separated}


def config(folder: Path, rows: Sequence[Row | bytes] | Path, /, **settings: Any) -> DataConfig:
    """Data with these train rows; dev and test hold one row each unless `settings` name their own."""
    path = rows if isinstance(rows, Path) else jsonl(folder / "train.jsonl", rows)
    raw = {
        "train": {"path": str(path)},
        "dev": {"path": str(jsonl(folder / "dev.jsonl", DEV))},
        "test": {"path": str(jsonl(folder / "test.jsonl", TEST))},
        "template": "raw",
    }
    return DataConfig.model_validate(raw | settings)


def load(data: DataConfig, *, max_new_tokens: int = 64, tokenizer: PreTrainedTokenizerFast = TOKENIZER) -> PromptSet:
    stops = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return load_prompts(data, tokenizer=tokenizer, stop_ids=stops, max_new_tokens=max_new_tokens)


def train_texts(prompts: PromptSet) -> list[str]:
    return [prompt.text for prompt in prompts.splits["train"]]


def decoded(prompt: Prompt) -> str:
    return str(TOKENIZER.decode(prompt.prompt_ids))


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_prompts(suffix: str, tmp_path: Path) -> None:
    texts = ["What is a stillroom?", "два\nlines, and a comma", '"quoted"', "12", "NA", "true", " 007"]
    path = WRITERS[suffix](tmp_path / f"train{suffix}", [{"id": str(i), "prompt": t} for i, t in enumerate(texts)])
    prompts = load(config(tmp_path, path))
    assert train_texts(prompts) == texts
    assert [decoded(prompt) for prompt in prompts.splits["train"]] == texts
    assert [prompt.row for prompt in prompts.splits["train"]] == list(range(len(texts)))
    assert prompts.rejected == ()
    assert tuple(prompts.splits) == ("train", "dev", "test")


def test_a_hub_dataset_may_be_a_local_directory(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    jsonl(folder / "train.jsonl", [{"prompt": f"row {i}"} for i in range(4)])
    data = config(tmp_path, [{"prompt": "unused"}], train={"hub": str(folder), "split": "train[1:3]"})
    assert train_texts(load(data)) == ["row 1", "row 2"]


BAD_ROWS: list[tuple[Row | bytes, str]] = [
    (b'{"prompt": "broken"', "invalid JSON: Expecting ',' delimiter"),
    (b'{"prompt": "\xff\xfe"}', "invalid UTF-8"),
    (b'{"prompt": "half a pair \\ud83d"}', "invalid UTF-8"),
    ({"prompt": "replaced \ufffd before"}, "invalid UTF-8"),
    (b'["a list"]', "not a JSON object"),
    (b"[" * 100_000, "invalid JSON: "),
    (b'{"prompt": ' + b"1" * 5000 + b"}", "invalid JSON: "),
    ({"prompt": ""}, "empty"),
    ({"prompt": " \n\t"}, "empty"),
    ({"prompt": "x" * 300}, "300 prompt tokens, more than data.max_prompt_tokens=256"),
    ({"prompt": "stop <|eos|> here"}, "special token <|eos|> written as text"),
    ({"prompt": "<|user|>"}, "special token <|user|> written as text"),
    ({"prompt": 12}, "not text but int"),
    ({"prompt": ["a"]}, "not text but list"),
    ({"prompt": None}, "not text but nothing"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS, ids=[reason[:30] for _, reason in BAD_ROWS])
def test_a_bad_row_is_set_aside_with_its_reason_and_the_others_go_on(
    row: Row | bytes, reason: str, tmp_path: Path
) -> None:
    prompts = load(config(tmp_path, [{"prompt": "before"}, row, {"prompt": "after"}]))
    assert train_texts(prompts) == ["before", "after"]
    assert [prompt.row for prompt in prompts.splits["train"]] == [0, 2]
    (rejected,) = prompts.rejected
    assert (rejected.split, rejected.row) == ("train", 1)
    assert rejected.reason.startswith(reason)


def test_bad_bytes_in_a_csv_cost_one_row(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(b"id,prompt\n1,before\n2,\xff\xfe\n3,one,cell,more\n4\n5,after\n")
    prompts = load(config(tmp_path, path))
    assert train_texts(prompts) == ["before", "after"]
    assert [rejected.reason for rejected in prompts.rejected] == [
        "invalid UTF-8",
        "more cells than the header",
        "not text but nothing",
    ]


def test_a_csv_quote_that_is_never_closed_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('prompt\nbefore\n"open\nafter\n')
    prompts = load(config(tmp_path, path))
    assert train_texts(prompts) == ["before"]
    assert [rejected.reason for rejected in prompts.rejected] == ["invalid CSV: unexpected end of data"]


def test_a_byte_order_mark_and_blank_lines_do_not_count(tmp_path: Path) -> None:
    rows = [b'\xef\xbb\xbf{"prompt": "first"}', b"", b'  {"prompt": "second"}  \r']
    assert train_texts(load(config(tmp_path, rows))) == ["first", "second"]
    path = tmp_path / "train.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt\nfirst\n\nsecond\n")
    assert train_texts(load(config(tmp_path, path))) == ["first", "second"]


def test_rejected_rows_are_written_one_a_line(tmp_path: Path) -> None:
    prompts = load(config(tmp_path, [{"prompt": "good"}, {"prompt": "half \ud83d"}, {"prompt": "y" * 400}]))
    prompts.write_rejected(tmp_path / "rejected.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [Rejected(**row) for row in rows] == list(prompts.rejected)
    assert len(rows[1]["text"]) <= 300


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_missing_field_names_the_fields_that_are_there(suffix: str, tmp_path: Path) -> None:
    path = WRITERS[suffix](tmp_path / f"train{suffix}", [{"id": "1", "question": "What?"}])
    with pytest.raises(DataError, match=r"data\.train row 0 has no field 'prompt', only 'id', 'question': set data\.p"):
        load(config(tmp_path, path))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([b"", b"  "], "the file has no rows"),
        ([{"prompt": ""}, {"prompt": 3}], "all 2 were set aside, the first because: empty"),
    ],
)
def test_a_split_without_a_usable_row_is_refused(rows: list[Row | bytes], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"data.train: no usable row; {reason}"):
        load(config(tmp_path, rows))


@pytest.mark.parametrize("name", ["train.txt", "train.json", "train"])
def test_another_kind_of_file_is_refused_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("prompt\n")
    with pytest.raises(DataError) as refused:
        load(config(tmp_path, path))
    assert str(refused.value) == f"data.train.path={path}: name a .jsonl, .parquet, .csv or .conll file"


def test_an_unknown_hub_dataset_is_one_line(tmp_path: Path) -> None:
    data = config(tmp_path, [{"prompt": "unused"}], train={"hub": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match=r"data\.train: .*nowhere cannot be read: ") as refused:
        load(data)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("other", ["dev", "test"])
def test_the_same_prompt_in_two_splits_is_refused(other: str, tmp_path: Path) -> None:
    text = {"dev": "dev question", "test": "test question"}[other]
    expected = rf"data\.{other} row 0 is the same prompt as data\.train row 1: remove it from one split"
    with pytest.raises(DataError, match=expected):
        load(config(tmp_path, [{"prompt": "own"}, {"prompt": text}]))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            {"train": ["a", "b"], "dev": ["c", "a"], "test": ["d", "e", "f"]},
            "data.dev row 1 is the same prompt as data.train row 0",
        ),
        (
            {"train": ["a"], "dev": ["c"], "test": ["d", "c", "f"]},
            "data.test row 1 is the same prompt as data.dev row 0",
        ),
        (
            {"train": ["a"], "dev": ["c", "x", "a"], "test": ["d"]},
            "data.dev row 2 is the same prompt as data.train row 0",
        ),
    ],
)
def test_whichever_split_is_the_largest_the_later_one_is_said_to_repeat_the_earlier(
    rows: dict[str, list[str]], said: str, tmp_path: Path
) -> None:
    given = {
        split: {"path": str(jsonl(tmp_path / f"{split}-rows.jsonl", [{"prompt": text} for text in texts]))}
        for split, texts in rows.items()
    }
    with pytest.raises(DataError) as refused:
        load(config(tmp_path, [], **given))
    assert str(refused.value).startswith(f"{said}: remove it")


def test_it_is_said_how_many_rows_are_read(tmp_path: Path) -> None:
    said: list[tuple[str, int]] = []
    data = config(tmp_path, [{"prompt": f"row {at}"} for at in range(2 * ROWS_AT_ONCE + 1)])
    load_prompts(data, tokenizer=TOKENIZER, stop_ids=(1,), max_new_tokens=4, progress=lambda *told: said.append(told))
    assert said == [("train", 0), ("train", ROWS_AT_ONCE), ("train", 2 * ROWS_AT_ONCE), ("dev", 0), ("test", 0)]


def test_a_prompt_may_stand_in_its_split_twice(tmp_path: Path) -> None:
    found = load(config(tmp_path, [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "b"}]))
    assert [row.row for row in found.splits["train"]] == [0, 1, 2]


def test_overlap_is_judged_by_what_the_model_reads(tmp_path: Path) -> None:
    # Different conversations that end in the same words are different prompts.
    rows = [[{"role": "user", "content": "dev question"}], [{"role": "user", "content": "other"}]]
    dev = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "dev question"}]
    data = config(
        tmp_path,
        [{"messages": row} for row in rows],
        dev={"path": str(jsonl(tmp_path / "d.jsonl", [{"messages": dev}]))},
        test={"path": str(jsonl(tmp_path / "t.jsonl", [{"messages": [{"role": "user", "content": "t"}]}]))},
        messages_field="messages",
        template="chat",
    )
    assert load(data).splits["dev"][0].text == "dev question"


def test_a_prompt_may_stand_twice_in_one_split(tmp_path: Path) -> None:
    assert len(load(config(tmp_path, [{"prompt": "twice"}, {"prompt": "twice"}])).splits["train"]) == 2


def test_raw_is_the_prompt_alone(tmp_path: Path) -> None:
    (prompt,) = load(config(tmp_path, [{"prompt": "{braces} {{%"}])).splits["train"]
    assert decoded(prompt) == "{braces} {{%"


def test_alpaca_puts_the_prompt_into_its_frame(tmp_path: Path) -> None:
    (prompt,) = load(config(tmp_path, [{"prompt": "Say {prompt}."}], template="alpaca")).splits["train"]
    assert decoded(prompt) == ALPACA.replace("{prompt}", "Say {prompt}.")
    assert prompt.text == "Say {prompt}."


def test_chat_renders_roles_and_opens_the_answer(tmp_path: Path) -> None:
    (prompt,) = load(config(tmp_path, [{"prompt": "Hi"}], template="chat")).splits["train"]
    user, end, assistant = (TOKENIZER.convert_tokens_to_ids(t) for t in ("<|user|>", "<|eos|>", "<|assistant|>"))
    assert prompt.prompt_ids == (user, *TOKENIZER.encode("Hi"), end, assistant)


def test_the_system_prompt_comes_first(tmp_path: Path) -> None:
    data = config(tmp_path, [{"prompt": "Hi"}], template="chat", system_prompt="Be brief.")
    (prompt,) = load(data).splits["train"]
    assert decoded(prompt) == "<|system|>Be brief.<|eos|><|user|>Hi<|eos|><|assistant|>"


def test_a_chat_needs_a_chat_template(tmp_path: Path) -> None:
    plain = byte_tokenizer()
    plain.chat_template = None
    with pytest.raises(DataError, match="the teacher's tokenizer has no chat template: use alpaca or raw"):
        load(config(tmp_path, [{"prompt": "Hi"}], template="chat"), tokenizer=plain)


def test_a_conversation_that_the_template_refuses_is_set_aside(tmp_path: Path) -> None:
    strict = byte_tokenizer()
    strict.chat_template = "{% if messages|length > 2 %}{{ raise_exception('one turn only') }}{% endif %}{% for m in messages %}x{{ m.content }}{% endfor %}"
    user = {"role": "user", "content": "a"}
    rows = [[user], [user, user, user]]
    data = config(
        tmp_path, [{"m": row} for row in rows], messages_field="m", template="chat", **own_splits(tmp_path, "m")
    )
    prompts = load(data, tokenizer=strict)
    assert len(prompts.splits["train"]) == 1
    assert [rejected.reason for rejected in prompts.rejected] == ["refused by the chat template: one turn only"]


def test_a_template_that_writes_nothing_leaves_no_prompt(tmp_path: Path) -> None:
    silent = byte_tokenizer()
    silent.chat_template = "{% if messages[0].content != 'a' %}{{ messages[0].content }}{% endif %}"
    prompts = load(config(tmp_path, [{"prompt": "a"}, {"prompt": "b"}], template="chat"), tokenizer=silent)
    assert train_texts(prompts) == ["b"]
    assert [rejected.reason for rejected in prompts.rejected] == ["nothing is left of it as a prompt"]


def own_splits(folder: Path, field: str) -> dict[str, Any]:
    """dev and test as conversations."""
    found = {}
    for split in ("dev", "test"):
        rows = [{field: [{"role": "user", "content": split}, {"role": "assistant", "content": "yes"}]}]
        found[split] = {"path": str(jsonl(folder / f"{split}-messages.jsonl", rows))}
    return found


def test_the_last_assistant_turn_of_a_conversation_is_the_gold_answer(tmp_path: Path) -> None:
    turns = [("user", "one"), ("assistant", "1"), ("user", "two"), ("assistant", "2")]
    rows = [{"m": [{"role": role, "content": text, "id": 7} for role, text in turns[:n]]} for n in (4, 3)]
    data = config(tmp_path, rows, messages_field="m", template="chat", **own_splits(tmp_path, "m"))
    answered, unanswered = load(data).splits["train"]
    rendered = "<|user|>one<|eos|><|assistant|>1<|eos|><|user|>two<|eos|><|assistant|>"
    assert decoded(answered) == decoded(unanswered) == rendered
    assert answered.gold_ids == (*TOKENIZER.encode("2"), TOKENIZER.eos_token_id)
    assert unanswered.gold_ids is None
    assert answered.text == "two"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "not a list of messages"),
        ("hello", "not a list of messages"),
        (None, "not a list of messages"),
        (["hello"], "a message without role and content"),
        ([{"role": "user"}], "a message without role and content"),
        (
            [{"role": "<|eos|>", "content": "x"}],
            "a message of role '<|eos|>', not one of system, user, assistant, tool",
        ),
        ([{"role": "assistant", "content": "x"}], "no message before the assistant's"),
        ([{"role": "user", "content": None}], "not text but nothing"),
        ([{"role": "user", "content": [{"type": "text"}]}], "not text but list"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}], "empty"),
        ([{"role": "user", "content": "<|pad|>"}, {"role": "user", "content": "x"}], "special token <|pad|> written"),
    ],
)
def test_a_broken_conversation_is_set_aside(messages: object, reason: str, tmp_path: Path) -> None:
    rows: list[Row | bytes] = [{"m": [{"role": "user", "content": "fine"}]}, {"m": messages}]
    data = config(tmp_path, rows, messages_field="m", template="chat", **own_splits(tmp_path, "m"))
    prompts = load(data)
    assert train_texts(prompts) == ["fine"]
    assert [rejected.reason[: len(reason)] for rejected in prompts.rejected] == [reason]


def gold_config(folder: Path, answer: object) -> DataConfig:
    rows: list[Row | bytes] = [{"prompt": "q", "answer": "fine"}, {"prompt": "r", "answer": answer}]
    others = {
        split: {"path": str(jsonl(folder / f"{split}-gold.jsonl", [{"prompt": split, "answer": "yes"}]))}
        for split in ("dev", "test")
    }
    return config(folder, rows, response_field="answer", **others)


def test_gold_ids_end_with_the_end_token_and_are_not_in_the_prompt(tmp_path: Path) -> None:
    prompts = load(gold_config(tmp_path, "yes, sir"))
    assert prompts.splits["train"][1].gold_ids == (*TOKENIZER.encode("yes, sir"), TOKENIZER.eos_token_id)
    assert decoded(prompts.splits["train"][1]) == "r"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "no answer"),
        ("", "empty"),
        (5, "not text but int"),
        ("a<|eos|>b", "special token <|eos|> written as text"),
        ("y" * 64, "65 response tokens, more than generation.max_new_tokens=64"),
    ],
)
def test_a_row_with_a_bad_gold_answer_is_set_aside(answer: object, reason: str, tmp_path: Path) -> None:
    prompts = load(gold_config(tmp_path, answer))
    assert len(prompts.splits["train"]) == 1
    assert [rejected.reason for rejected in prompts.rejected] == [reason]


def test_gold_answers_need_an_end_token(tmp_path: Path) -> None:
    endless = byte_tokenizer()
    endless.eos_token = None
    with pytest.raises(DataError, match="end-of-sequence token, which the teacher's tokenizer does not have"):
        load(gold_config(tmp_path, "yes"), tokenizer=endless)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_limit_stops_reading(suffix: str, tmp_path: Path) -> None:
    path = WRITERS[suffix](tmp_path / f"train{suffix}", [{"prompt": f"row {i}"} for i in range(5)])
    assert train_texts(load(config(tmp_path, path, train={"path": str(path), "limit": 2}))) == ["row 0", "row 1"]


def test_a_prompt_of_just_the_limit_is_used(tmp_path: Path) -> None:
    prompts = load(config(tmp_path, [{"prompt": "x" * 8}, {"prompt": "y" * 9}], max_prompt_tokens=8, **short(tmp_path)))
    assert train_texts(prompts) == ["x" * 8]


def short(folder: Path) -> dict[str, Any]:
    return {split: {"path": str(jsonl(folder / f"{split}-s.jsonl", [{"prompt": split}]))} for split in ("dev", "test")}


def test_a_control_token_without_a_name_is_one_too(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<|tool_call|>"], special_tokens=True)
    prompts = load(config(tmp_path, [{"prompt": "ok"}, {"prompt": "a <|tool_call|>"}]), tokenizer=tokenizer)
    assert [rejected.reason for rejected in prompts.rejected] == ["special token <|tool_call|> written as text"]


def test_only_a_chat_template_writes_its_own_begin_token(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", begin)]
    )
    (raw,) = load(config(tmp_path, [{"prompt": "Hi"}]), tokenizer=tokenizer).splits["train"]
    (chat,) = load(config(tmp_path, [{"prompt": "Hi"}], template="chat"), tokenizer=tokenizer).splits["train"]
    assert raw.prompt_ids == (begin, *TOKENIZER.encode("Hi"))
    assert begin not in chat.prompt_ids
    (answered, _) = load(gold_config(tmp_path, "yes"), tokenizer=tokenizer).splits["train"]
    assert answered.gold_ids is not None
    assert begin not in answered.gold_ids
