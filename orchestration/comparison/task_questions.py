"""The examples of a task as they are put to one model: token ids from its own tokenizer and chat template.

Worked examples are former turns of the conversation where a task goes through the chat template, and stand before the
question, an empty line between them, where it does not. A teacher that is shown more than a row (`LoadedTask.context`)
reads its instruction as the message of the system, or in front of everything, and what stands around the row in front
of the question.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING

from pydantic import JsonValue

from configs import DataError, DistillConfig, ModelError
from configs.schema import TEMPLATE_DATE
from evaluation.results import TaskExample
from evaluation.tasks.examples import Example
from evaluation.tasks.few_shot import Turn
from evaluation.tasks.surroundings import around_of
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.prompt_reader import control_tokens
from orchestration.inputs.tasks import LoadedTask
from orchestration.inputs.templates import ChatTemplates, Unrendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BY_TEMPLATE = "refused by the chat template"
"""How the reason begins for which a question is not asked that the template does not take."""

LONGEST_PROMPT = 4096
"""Tokens of a question; what is longer than an engine reads, the engine refuses itself."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How models are asked, beside what a task says of it.

    With a temperature above 0 every question is answered under each of `seeds` seeds, from `seed` on. The last four are
    for chat templates (`configs.data.DataConfig`).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    seeds: int = 1
    chat_template: str | None = None
    template_kwargs: Mapping[str, JsonValue] | None = None
    date_of_templates: date = TEMPLATE_DATE
    max_prompt_tokens: int = LONGEST_PROMPT

    @classmethod
    def of(cls, config: DistillConfig) -> Asking:
        """As an experiment asks: with the sampling of its teacher and the template settings of its data."""
        generation, data = config.generation, config.data
        return cls(
            temperature=generation.temperature,
            top_p=generation.top_p,
            seed=generation.seed,
            seeds=config.evaluation.seeds or 1,
            chat_template=data.chat_template,
            template_kwargs=data.template_kwargs,
            date_of_templates=data.date_of_templates,
        )

    @property
    def all_seeds(self) -> range:
        """The seeds of sampled answers; one where answers are not sampled."""
        return range(self.seed, self.seed + (self.seeds if self.temperature > 0 else 1))

    def fields(self) -> dict[str, object]:
        """What changes an answer, as JSON can say it."""
        return {**asdict(self), "date_of_templates": self.date_of_templates.isoformat()}


@dataclass(frozen=True, slots=True)
class Question:
    """An example as a model is asked it.

    `label_ids` are what each label adds to the prompt, in the order of the labels. `refused` says why the model cannot
    be asked.
    """

    example: Example
    prompt_ids: tuple[int, ...] = ()
    label_ids: tuple[tuple[int, ...], ...] = ()
    refused: str | None = None

    def answered(
        self,
        *,
        seed: int = 0,
        answer: str = "",
        predicted: tuple[str, ...] | None = None,
        confidence: float = math.nan,
    ) -> TaskExample:
        """The example with what came back, and with what was read from it."""
        example = self.example
        return TaskExample(
            row=example.row,
            seed=seed,
            shown=example.question,
            gold=example.gold,
            answer=answer,
            predicted=predicted,
            confidence=confidence,
            tokens=len(self.prompt_ids),
            pair=example.pair,
        )


def questions_for(
    files: ModelFiles, examples: Sequence[Example], *, task: LoadedTask, asking: Asking
) -> tuple[Question, ...]:
    """What a model is asked, in the order of `examples`.

    Raises:
        ModelError: the task wants a chat template, and the model has none that can be used.
    """
    config, tokenizer = task.config, files.tokenizer
    if config.chat and not tokenizer.chat_template:
        raise ModelError(f"{files.label}: has no chat template: set chat: false in task {config.name}, or add one")
    control = control_tokens(tokenizer)
    words = tuple(config.verbalisers.values()) if config.label_scoring is not None else ()
    try:
        with ChatTemplates(asking, tokenizer) as templates:
            return tuple(
                _question(each, text, words=words, tokenizer=tokenizer, chat=config.chat, control=control)
                for each, text in _texts(examples, task=task, templates=templates)
            )
    except DataError as error:
        raise ModelError(f"{files.label}: its chat template cannot be used for task {config.name} ({error})") from error


def _texts(
    examples: Sequence[Example], *, task: LoadedTask, templates: ChatTemplates
) -> Iterator[tuple[Example, str | Unrendered]]:
    system = None if task.context is None else task.context.system_prompt
    for example in examples:
        question = "\n\n".join([*_around(example), example.question])
        if not task.config.chat:
            plain = plain_prompt(task.shots.before(example), question)
            yield example, plain if system is None else f"{system}\n\n{plain}"
            continue
        turns = [{"role": "system", "content": system}] if system is not None else []
        turns += [
            {"role": role, "content": words}
            for turn in task.shots.before(example)
            for role, words in (("user", turn.question), ("assistant", turn.answer))
        ]
        try:
            messages = [*turns, {"role": "user", "content": question}]
            yield example, templates.render(messages, tools=None, opens_answer=True)
        except Unrendered as error:
            yield example, error


def _around(example: Example) -> list[str]:
    """What stands around an example, a paragraph each: the passage, the texts before it, and those behind it."""
    around = around_of(example)
    said = {"Passage": [around.passage] if around.passage else [], "Before": around.before, "After": around.after}
    return [f"{title}:\n" + "\n".join(" ".join(piece) for piece in pieces) for title, pieces in said.items() if pieces]


def _question(
    example: Example,
    text: str | Unrendered,
    *,
    words: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    chat: bool,
    control: Sequence[str],
) -> Question:
    if isinstance(text, Unrendered):
        return Question(example, refused=f"{BY_TEMPLATE}: {text}")
    said = "\n".join([*_around(example), example.question])
    spelt = next((token for token in control if token in said), None)
    if spelt is not None:
        return Question(example, refused=f"its text spells the special token {spelt}")
    prompt = tuple(tokenizer.encode(text, add_special_tokens=not chat))
    # A plain text goes on with a space before the label, if it does not end with one.
    gap = "" if chat or text[-1:].isspace() else " "
    labels = tuple(_continuation(text, gap + word, prompt, tokenizer=tokenizer, chat=chat) for word in words)
    return Question(example, prompt, labels)


def _continuation(
    text: str, more: str, prompt: tuple[int, ...], *, tokenizer: PreTrainedTokenizerBase, chat: bool
) -> tuple[int, ...]:
    """The ids of `more` after a prompt, as the tokenizer writes both together, if the prompt stays what it is."""
    whole = tuple(tokenizer.encode(text + more, add_special_tokens=not chat))
    if whole[: len(prompt)] == prompt and len(whole) > len(prompt):
        return whole[len(prompt) :]
    return tuple(tokenizer.encode(more, add_special_tokens=False))


def plain_prompt(turns: Sequence[Turn], question: str) -> str:
    """Worked examples and a question as one text."""
    return "\n\n".join([*map(_worked, turns), question])


def _worked(turn: Turn) -> str:
    return turn.question + ("" if turn.question[-1:].isspace() else " ") + turn.answer
