"""Text and conversations to token ids and back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from doors import EOS, FIRST_CHARACTER, SPECIAL, ToyTokenizer

from teacher_server.http.bodies import ChatMessage
from teacher_server.http.texts import TextError, Texts

TEXTS = Texts(ToyTokenizer(), stop_ids=(EOS,))
BOS, USER, ASSISTANT = SPECIAL["<bos>"], SPECIAL["<user>"], SPECIAL["<assistant>"]


def chars(text: str) -> tuple[int, ...]:
    return tuple(FIRST_CHARACTER + ord(char) for char in text)


def talk(*words: str) -> list[ChatMessage]:
    """User and assistant in turn."""
    return [ChatMessage(role=("user", "assistant")[at % 2], content=each) for at, each in enumerate(words)]  # type: ignore[arg-type]


def test_a_prompt_gets_the_special_tokens_of_a_text() -> None:
    assert TEXTS.prompt("ab") == (BOS, *chars("ab"))
    assert TEXTS.prompt("") == (BOS,)


def test_a_completion_follows_its_prompt() -> None:
    assert TEXTS.completed("ab", "c") == ((BOS, *chars("abc")), 3)


def test_a_conversation_ends_where_the_teacher_goes_on() -> None:
    assert TEXTS.conversation(talk("Hi")) == (USER, *chars("Hi"), EOS, *chars("\n"), ASSISTANT)


def test_an_answer_ends_with_the_token_that_ends_a_turn() -> None:
    before = TEXTS.conversation(talk("Hi"))
    assert TEXTS.answered(talk("Hi", "Ho")) == ((*before, *chars("Ho"), EOS), len(before))


def test_an_answer_without_such_a_token_is_scored_as_the_template_writes_it() -> None:
    ids, prompt_len = Texts(ToyTokenizer()).answered(talk("Hi", "Ho"))
    assert ids[prompt_len:] == (*chars("Ho"), EOS)


def test_ids_become_text_without_special_tokens() -> None:
    assert TEXTS.text([ASSISTANT, *chars("Ho"), EOS]) == "Ho"


def test_the_template_gets_its_variables() -> None:
    texts = Texts(ToyTokenizer(), template_variables={"before": "!"})
    assert texts.conversation(talk("Hi"))[:2] == (*chars("!"), USER)


@pytest.mark.parametrize(
    "use",
    [
        lambda text: TEXTS.prompt(text),
        lambda text: TEXTS.completed(text, "a"),
        lambda text: TEXTS.completed("a", text),
        lambda text: TEXTS.conversation(talk(text)),
        lambda text: TEXTS.answered(talk("a", text)),
    ],
)
@pytest.mark.parametrize("spelled", ["<eos>", "<unnamed>"])
def test_nobody_writes_a_control_token_as_text(use: Callable[[str], Any], spelled: str) -> None:
    with pytest.raises(TextError, match=f"spells the special token {spelled}: give token ids"):
        use(f"a{spelled}b")


def test_the_last_message_that_is_scored_is_the_assistant_s() -> None:
    with pytest.raises(TextError, match="the last message is of the role user"):
        TEXTS.answered(talk("Hi", "Ho", "Hm"))


def test_what_the_template_refuses_is_told_in_one_line() -> None:
    with pytest.raises(TextError, match=r"^the chat template refuses the messages: there is no template$"):
        TEXTS.conversation([ChatMessage(role="tool", content="42")])


def test_a_template_that_writes_answers_otherwise_than_it_opens_them_is_told_of() -> None:
    class Thinks(ToyTokenizer):
        def apply_chat_template(self, conversation: list[dict[str, str]], **settings: Any) -> str:
            opened = "<unnamed>" if settings["add_generation_prompt"] else ""
            return super().apply_chat_template(conversation, **settings) + opened

    with pytest.raises(TextError, match="does not write the answer behind the prompt: give token_ids"):
        Texts(Thinks(), stop_ids=(EOS,)).answered(talk("Hi", "Ho"))


def test_one_thread_at_a_time_uses_the_tokenizer() -> None:
    class Busy(ToyTokenizer):
        taken = threading.Lock()

        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            assert self.taken.acquire(blocking=False), "already borrowed"
            try:
                threading.Event().wait(0.005)
                return super().encode(text, add_special_tokens=add_special_tokens)
            finally:
                self.taken.release()

    texts = Texts(Busy())
    with ThreadPoolExecutor(4) as pool:
        found: Sequence[tuple[int, ...]] = list(pool.map(texts.prompt, ["a"] * 12))
    assert set(found) == {(BOS, *chars("a"))}
