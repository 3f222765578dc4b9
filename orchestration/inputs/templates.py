"""The chat template of a tokenizer: which of several it is, what it is given, and for how long it may run.

It is rendered by a process of its own (`template_worker`). A row at which it fails is set aside with the reason; one
that needs too much time or memory costs that process, and after a few of those the template is given up as a whole.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from configs import DataError
from configs.visible_text import visible
from orchestration.inputs import template_worker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS = 5.0
"""Processor time of one row: a thousand times what a long conversation takes."""

WALL_SECONDS = 60.0
MEMORY_BYTES = 2**30
PATIENCE = 5
"""This many rows may use up their time or memory before the template is given up."""

LINE_BYTES = 2**18
"""Rows that go to the process together, so that what they take of its memory is small beside its limit."""

CHARACTERS_A_TOKEN = 64
LEAST_CHARACTERS = 2**20


class Unrendered(Exception):
    """The template does not render these messages; why."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a template is given of one row."""

    messages: Sequence[Mapping[str, Any]]
    tools: list[Any] | None


class TemplateSettings(Protocol):
    """What is said of chat templates, as `configs.data.DataConfig` says it."""

    @property
    def chat_template(self) -> str | None:
        """The name of one of several."""
        ...

    @property
    def template_kwargs(self) -> Mapping[str, Any] | None:
        """Further variables."""
        ...

    @property
    def date_of_templates(self) -> date:
        """Today, to a template that asks."""
        ...

    @property
    def max_prompt_tokens(self) -> int:
        """Tokens of the longest prompt that is of use."""
        ...


class ChatTemplates:
    """The templates of a tokenizer; a context manager that ends their processes.

    With `student`, a name for people, they are those of a student whose teacher the settings are for: what its template
    does not have of them is left out.
    """

    def __init__(
        self, config: TemplateSettings, tokenizer: PreTrainedTokenizerBase, *, student: str | None = None
    ) -> None:
        self._config = config
        self._whose = "the teacher's" if student is None else f"{student}'s"
        self._asks_all = student is None
        self._listed = _listed(tokenizer)
        self._special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        self._open: dict[str, _Worker] = {}
        self._processes = ExitStack()
        self._failures = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.close()

    def leaves_out(self, field: str, *, tools: bool) -> bool:
        """Whether the template does not so much as name a field of a message."""
        return field not in self._source(tools=tools)

    def render(self, messages: Sequence[Mapping[str, Any]], *, tools: list[Any] | None, opens_answer: bool) -> str:
        """The text of a conversation; with `opens_answer` up to where the model goes on.

        Raises:
            Unrendered: the template refuses it, or takes too long over it.
            DataError: the template cannot be used at all.
        """
        (text,) = self.render_all([Conversation(messages, tools)], opens_answer=opens_answer)
        if isinstance(text, Unrendered):
            raise text
        return text

    def render_all(self, conversations: Sequence[Conversation], *, opens_answer: bool) -> list[str | Unrendered]:
        """`render` of each, or why there is no text; one is rendered while others are written and read.

        Raises:
            DataError: the template cannot be used at all.
        """
        sources = [self._source(tools=each.tools is not None) for each in conversations]
        found: dict[int, str | Unrendered] = {}
        for source in dict.fromkeys(sources):
            left = [at for at, own in enumerate(sources) if own == source]
            alone = False
            while left:
                # Of a process that ended the last answers are lost, so who ended it shows when rows are asked alone.
                lot = left[:1] if alone else left
                answers = self._rendered([conversations[at] for at in lot], source, opens_answer=opens_answer)
                found |= zip(lot, answers, strict=False)
                if source not in self._open:
                    alone = len(lot) > 1
                left = left[len(answers) :]
        return [found[at] for at in range(len(conversations))]

    def _rendered(
        self, conversations: Sequence[Conversation], source: str, *, opens_answer: bool
    ) -> list[str | Unrendered]:
        """`render` of each as far as a process comes with them, of one alone in any case."""
        shared = {**self._special, **(self._config.template_kwargs or {}), "documents": None}
        asked = [{"messages": each.messages, "tools": each.tools} for each in conversations]
        found: list[str | Unrendered] = []
        for answer in self._worker(source).ask_all(asked, shared={**shared, "add_generation_prompt": opens_answer}):
            if answer.used_up:
                self._open.pop(source).close()
                if len(asked) > 1:
                    return found
                self._count_failure(answer)
            found.append(answer.text if answer.error is None else Unrendered(answer.error))
        return found

    def _count_failure(self, answer: _Answer) -> None:
        """Take note of a row that used up a process; the next row gets another."""
        self._failures += 1
        if self._failures == PATIENCE:
            raise DataError(
                f"data.template=chat: {self._whose} chat template {answer.error}, at {PATIENCE} rows by now: mend it, "
                "choose another with data.chat_template, or use alpaca or raw"
            )

    def _worker(self, source: str) -> _Worker:
        if source not in self._open:
            date = self._config.date_of_templates.isoformat()
            worker = self._processes.enter_context(_Worker(source, date=date, characters=self._characters))
            if worker.broken is not None:
                raise DataError(
                    f"data.template=chat: {self._whose} chat template cannot be used ({worker.broken}): mend it, "
                    "choose another with data.chat_template, or use alpaca or raw"
                )
            unknown = sorted(set(self._config.template_kwargs or {}) - set(worker.variables))
            if unknown and self._asks_all:
                raise DataError(
                    f"data.template_kwargs.{unknown[0]}: the teacher's chat template does not use it, only "
                    f"{visible(', '.join(worker.variables), at_most=300)}: correct or remove it"
                )
            self._open[source] = worker
        return self._open[source]

    @property
    def _characters(self) -> int:
        return max(LEAST_CHARACTERS, CHARACTERS_A_TOKEN * self._config.max_prompt_tokens)

    def _source(self, *, tools: bool) -> str:
        """The template to use, chosen as transformers does where the configuration names none."""
        wanted, listed = self._config.chat_template, self._listed
        if not listed:
            raise DataError(f"data.template=chat but {self._whose} tokenizer has no chat template: use alpaca or raw")
        names = visible(", ".join(sorted(listed)), at_most=300)
        if wanted is not None and (wanted in listed or self._asks_all):
            if wanted not in listed:
                raise DataError(f"data.chat_template={wanted}: the teacher's tokenizer has only {names}: choose one")
            return listed[wanted]
        if tools and "tool_use" in listed:
            return listed["tool_use"]
        if "default" not in listed:
            raise DataError(
                f"{self._whose} tokenizer has several chat templates: choose data.chat_template from {names}"
            )
        return listed["default"]


def _lines(asked: Sequence[Mapping[str, Any]], *, shared: Mapping[str, Any]) -> list[bytes]:
    """The questions as lines of not much more than `LINE_BYTES`, each with what they share."""
    head = b'{"shared": ' + json.dumps(shared, default=str).encode() + b', "rows": ['
    lots, size = list[list[bytes]](), LINE_BYTES
    for each in asked:
        row = json.dumps(each, default=str).encode()
        if size + len(row) > LINE_BYTES:
            lots, size = [*lots, []], 0
        lots[-1].append(row)
        size += len(row)
    return [head + b", ".join(lot) + b"]}\n" for lot in lots]


def _listed(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Templates by name; a single one is the default."""
    held = tokenizer.chat_template
    if isinstance(held, dict):
        return {str(name): str(text) for name, text in held.items()}
    return {"default": str(held)} if held else {}


@dataclass(frozen=True, slots=True)
class _Answer:
    """`used_up` tells that the process ended over it."""

    text: str = ""
    error: str | None = None
    used_up: bool = False


class _Worker:
    """A process that renders one template. `broken` says why it cannot, `variables` are those that it uses."""

    def __init__(self, source: str, *, date: str, characters: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(template_worker.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._unread = bytearray()
        order = {
            "template": source,
            "date": date,
            "characters": characters,
            "seconds": SECONDS,
            "memory_bytes": MEMORY_BYTES,
        }
        (first,) = self._exchange([json.dumps(order).encode() + b"\n"], count=1)
        found: dict[str, Any] = first if isinstance(first, dict) else {"error": first}
        self.broken: str | None = visible(found["error"]) if "error" in found else None
        self.variables: list[str] = found.get("variables", [])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                # What it did not read any more is still in the buffer.
                continue

    def ask_all(self, asked: Sequence[Mapping[str, Any]], *, shared: Mapping[str, Any]) -> Iterator[_Answer]:
        """For each the rendered text, or why there is none; at the last one the process may have ended.

        It may then have ended at a later row: what it had rendered in its last moment is not known.
        """
        for answer in self._exchange(_lines(asked, shared=shared), count=len(asked)):
            if isinstance(answer, str):
                yield _Answer(error=answer, used_up=True)
                return
            yield _Answer(text=answer.get("text", ""), error=answer.get("error"))

    def _exchange(self, lines: Sequence[bytes], *, count: int) -> Iterator[dict[str, Any] | str]:
        """What the process answers to each of `count` questions; how it ended, if it did."""
        # In a thread: the process may wait for its answers to be read before it reads on.
        feeding = threading.Thread(target=self._feed, args=(lines,), daemon=True)
        feeding.start()
        while count > 0:
            line = self._line(until=time.monotonic() + WALL_SECONDS)
            if line is None:
                ended = self._how_it_ended()
                feeding.join()
                yield ended
                return
            answers: list[dict[str, Any]] = json.loads(line)
            count -= len(answers)
            yield from answers
        feeding.join()

    def _feed(self, lines: Sequence[bytes]) -> None:
        assert self._process.stdin is not None
        # Of a process that ended the answer will be missing; nobody reads on after `close`.
        with suppress(BrokenPipeError, ValueError):
            self._process.stdin.writelines(lines)
            self._process.stdin.flush()

    def _line(self, *, until: float) -> bytes | None:
        """The next line that the process writes; None where it writes none in time, or ended."""
        assert self._process.stdout is not None
        handle, searched = self._process.stdout.fileno(), 0
        while (end := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            if not select.select([handle], [], [], max(until - time.monotonic(), 0))[0]:
                return None
            # Unbuffered, since nothing may be left behind in a buffer that select does not see.
            part = self._process.stdout.raw.read(2**20)  # type: ignore[attr-defined]
            if not part:
                return None
            self._unread += part
        line = bytes(self._unread[: end + 1])
        del self._unread[: end + 1]
        return line

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return f"does not end within {WALL_SECONDS:g} s"
        if status == template_worker.OUT_OF_MEMORY:
            return f"needs more than {MEMORY_BYTES // 2**20:,} MiB of memory"
        if status == -signal.SIGPROF:
            return f"does not end within {SECONDS:g} s of processor time"
        return f"ended its process with status {status}"
