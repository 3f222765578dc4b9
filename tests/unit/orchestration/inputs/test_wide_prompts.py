"""What the teacher reads beside a row: its layout, the rows that are set aside for it, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import experiment

from cache import rows
from configs import ConfigError, DataError
from configs.schema import DistillConfig
from orchestration.inputs.prompt_splits import load_prompts
from orchestration.inputs.prompts import Prompt, PromptSet
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.wide_prompts import Widened, laid_out, with_context

TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id
CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
Row = dict[str, Any]


def write(folder: Path, **splits: list[Row]) -> None:
    for split in ("train", "dev", "test"):
        rows = splits.get(split, [{"prompt": f"{split} asks", "answer": "yes", "text": "a passage"}])
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def config(folder: Path, context: Row, /, *, limit: int = 400, **data: Any) -> DistillConfig:
    engine = {"max_model_len": limit, "max_batched_tokens": limit, "count": 1}
    splits = {split: {"path": str(folder / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    settings = {"template": "raw", "max_prompt_tokens": 40} | data
    wanted: Row = {
        "data": splits | settings,
        "teacher_context": context,
        "runtime": {"teacher_engine": engine, "student_engine": engine},
    }
    return experiment(folder, **wanted)


def widen(wanted: DistillConfig, *, chat: str | None = None) -> Widened:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = chat
    prompts = load_prompts(wanted.data, tokenizer=tokenizer, stop_ids=(EOS,), max_new_tokens=64)
    return with_context(prompts, wanted, tokenizer=tokenizer)


def shown(prompt: Prompt) -> str:
    text: str = TOKENIZER.decode(prompt.asked_ids, skip_special_tokens=True)
    return text


def rows_of(*texts: str, **more: Any) -> list[Row]:
    return [{"prompt": text, "answer": f"of {text}"} | more for text in texts]


def test_without_a_context_nothing_changes(tmp_path: Path) -> None:
    write(tmp_path)
    wanted = experiment(tmp_path)
    prompts = PromptSet({}, ())
    assert with_context(prompts, wanted, tokenizer=TOKENIZER) == Widened(prompts)


def test_students_read_on_what_they_read(tmp_path: Path) -> None:
    write(tmp_path, train=rows_of("one", "two"))
    wanted = config(tmp_path, {"system_prompt": "Be brief."})
    narrow = load_prompts(wanted.data, tokenizer=TOKENIZER, stop_ids=(EOS,), max_new_tokens=64)
    wide = widen(wanted).prompts
    for split, prompts in narrow.splits.items():
        assert [each.prompt_ids for each in wide.splits[split]] == [each.prompt_ids for each in prompts]
        for each in wide.splits[split]:
            assert shown(each) == f"Be brief.\n\n{each.text}"
    assert wide.as_students_see() == narrow


def test_passage_and_neighbours_stand_before_the_rows_own_words(tmp_path: Path) -> None:
    texts = [{"prompt": f"p{n}", "text": f"passage {n}", "doc": "ab"[n > 2]} for n in range(5)]
    write(
        tmp_path,
        train=texts,
        dev=[{"prompt": "d", "text": "t", "doc": 1}],
        test=[{"prompt": "e", "text": "t", "doc": 1}],
    )
    near = {"before": 2, "after": 1, "within": "doc"}
    train = widen(config(tmp_path, {"passage_field": "text", "neighbours": near})).prompts.splits["train"]
    assert shown(train[1]) == "Passage:\npassage 1\n\nBefore:\np0\n\nAfter:\np2\n\np1"
    assert shown(train[2]) == "Passage:\npassage 2\n\nBefore:\np0\np1\n\np2"
    assert shown(train[3]) == "Passage:\npassage 3\n\nAfter:\np4\n\np3"
    assert laid_out("own", passage=None, before=[], after=[]) == "own"


def test_rows_that_cannot_be_used_are_nobodys_neighbours_but_long_ones_are(tmp_path: Path) -> None:
    write(tmp_path, train=[{"prompt": "a"}, {"prompt": TOKENIZER.eos_token}, {"prompt": "x" * 50}, {"prompt": "b"}])
    train = widen(config(tmp_path, {"neighbours": {"before": 2}})).prompts.splits["train"]
    assert [each.row for each in train] == [0, 3]
    assert shown(train[1]) == f"Before:\na\n{'x' * 50}\n\nb"


@pytest.mark.parametrize("template", ["raw", "alpaca"])
def test_without_a_chat_template_examples_are_whole_texts_in_front(tmp_path: Path, template: str) -> None:
    write(tmp_path, train=rows_of("q0", "q1", "q2"))
    context = {"system_prompt": "Rules.", "examples": {"count": 2}}
    wide = widen(
        config(tmp_path, context, limit=1500, template=template, response_field="answer", max_prompt_tokens=300)
    ).prompts
    (test,) = wide.splits["test"]
    whole, own = shown(test), TOKENIZER.decode(test.prompt_ids, skip_special_tokens=True)
    assert whole.startswith("Rules.\n\n") and whole.endswith("\n\n" + own)
    examples = [each for each in wide.splits["train"] if f"of {each.text}" in whole]
    assert len(examples) == 2
    for each in examples:
        assert TOKENIZER.decode(each.prompt_ids, skip_special_tokens=True) + f"of {each.text}\n\n" in whole
    # An example reads the spare one in its place, and never its own answer.
    (spare,) = (each for each in wide.splits["train"] if each not in examples)
    for each in examples:
        assert f"of {each.text}" not in shown(each) and f"of {spare.text}" in shown(each)
    assert shown(spare).removesuffix(
        TOKENIZER.decode(spare.prompt_ids, skip_special_tokens=True)
    ) == whole.removesuffix(own)


def test_in_a_chat_the_system_prompt_comes_first_then_examples_then_the_row(tmp_path: Path) -> None:
    def talk(*said: str, system: str | None = None) -> Row:
        roles = ["user", "assistant"] * len(said)
        messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
        return {"talk": ([{"role": "system", "content": system}] if system else []) + messages, "text": "facts"}

    write(
        tmp_path,
        train=[talk("q0", "a0"), talk("q1", "a1", system="own rule")],
        dev=[talk("d", "-")],
        test=[talk("t0", "then", "t1", "gold", system="own rule"), talk("u0", "then", "u1")],
    )
    context = {"system_prompt": "Teach.", "examples": {"count": 1}, "passage_field": "text"}
    wanted = config(
        tmp_path, context, template="chat", messages_field="talk", system_prompt="Be kind.", max_prompt_tokens=99
    )
    first, second = widen(wanted, chat=CHAT).prompts.splits["test"]
    number = 0 if "q0" in shown(first) else 1
    example = f"[user]q{number}\n[assistant]a{number}\n"
    rest = "[user]t0\n[assistant]then\n[user]Passage:\nfacts\n\nt1\n[assistant]"
    assert shown(first) == f"[system]Teach.\n\nown rule\n{example}{rest}"
    assert shown(second).startswith(f"[system]Teach.\n\nBe kind.\n{example}[user]u0\n")


def test_rows_that_the_teacher_cannot_read_are_set_aside_with_both_numbers(tmp_path: Path) -> None:
    texts = ["t" * 20, "t" * 90, "", None, f"a {TOKENIZER.eos_token}"]
    write(tmp_path, train=[{"prompt": f"p{n}", "text": text} for n, text in enumerate(texts)])
    widened = widen(config(tmp_path, {"passage_field": "text"}, limit=100))
    assert [each.row for each in widened.prompts.splits["train"]] == [0]
    reasons = {each.row: each.reason for each in widened.prompts.rejected}
    assert reasons[1] == (
        "103 prompt tokens with teacher_context, and runtime.teacher_engine.max_model_len=100 - max_new_tokens=6 - 1 "
        "leave the teacher 93"
    )
    assert reasons[2] == "teacher_context.passage_field=text: empty"
    assert reasons[3] == "teacher_context.passage_field=text: not text but nothing"
    assert reasons[4].startswith("teacher_context.passage_field=text: special token")
    (said,) = widened.said
    assert said.endswith("31 at most; 4 rows set aside for it. Students never see it.")
    assert said.startswith("The teacher's context adds ")


def test_the_longest_that_fits_is_kept(tmp_path: Path) -> None:
    for room, kept in ((93, 1), (94, 0)):
        write(
            tmp_path,
            train=[{"prompt": "p", "text": "t" * (room - len("Passage:\n\n\np"))}, {"prompt": "q", "text": "-"}],
        )
        train = widen(config(tmp_path, {"passage_field": "text"}, limit=100)).prompts.splits["train"]
        assert [each.row for each in train] == [0, 1][1 - kept :]


@pytest.mark.parametrize(
    ("context", "error", "said"),
    [
        ({"system_prompt": " "}, ConfigError, r"teacher_context\.system_prompt cannot be used: empty"),
        ({"system_prompt": TOKENIZER.eos_token}, ConfigError, "cannot be used: special token .* write it otherwise"),
        (
            {"passage_field": "facts"},
            DataError,
            r"row 0 has no field 'facts', only .*: correct teacher_context\.passage_f",
        ),
        ({"neighbours": {"before": 1, "within": "doc"}}, DataError, r"correct teacher_context\.neighbours\.within"),
        (
            {"examples": {"count": 2}},
            DataError,
            r"examples\.count=2 needs 3 different rows .* there are 2: lower count",
        ),
        (
            {"system_prompt": "s" * 390, "examples": {"count": 1}},
            ConfigError,
            r"its system prompt and examples have 39\d tokens, and runtime\.teacher_engine\.max_model_len=400 - "
            r"max_new_tokens=6 - 1 leave the teacher 393 for a prompt: shorten the first, lower examples\.count",
        ),
        (
            {"system_prompt": "s" * 392},
            DataError,
            r"data\.train: no usable row with teacher_context; all 2 were set aside, the first because: 39\d prompt tok",
        ),
    ],
)
def test_a_context_that_cannot_be_used_is_refused(
    tmp_path: Path, context: Row, error: type[Exception], said: str
) -> None:
    write(tmp_path, train=rows_of("one", "two", text="x"))
    with pytest.raises(error, match=said):
        widen(config(tmp_path, context, response_field="answer"))


def test_rows_that_only_students_can_tell_apart_are_refused(tmp_path: Path) -> None:
    """The layout of one row's context spelt out as another row's own words."""
    write(
        tmp_path, train=[{"prompt": "a", "of": 1}, {"prompt": "b", "of": 1}, {"prompt": "Before:\na\n\nb", "of": None}]
    )
    for split in ("dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"prompt": split, "of": None}) + "\n")
    with pytest.raises(
        DataError, match=r"data\.train row 2 and data\.train row 1 are different prompts, but with teach"
    ):
        widen(config(tmp_path, {"neighbours": {"before": 1, "within": "of"}}))


def test_rows_that_are_shown_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As objects a row, what it says, what stands around it and its two prompts take six thousand bytes."""
    monkeypatch.setattr(rows, "HELD_BYTES", 2**14)
    monkeypatch.setattr(rows, "AT_ONCE", 16)

    def most_held(count: int) -> int:
        told = rows_of(*(f"{number} {'w' * 100}" for number in range(count)))
        write(tmp_path, train=told)
        context = {"neighbours": {"before": 1, "after": 1}, "examples": {"count": 2}}
        wanted = config(tmp_path, context, limit=4000, response_field="answer", max_prompt_tokens=200)
        prompts = load_prompts(wanted.data, tokenizer=TOKENIZER, stop_ids=(EOS,), max_new_tokens=200)
        tracemalloc.start()
        widened = with_context(prompts, wanted, tokenizer=TOKENIZER)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(widened.prompts.splits["train"]) == count
        return most

    few, many = 200, 800
    assert (most_held(many) - most_held(few)) / (many - few) < 300
