"""The methods of the literature that this project does: what each takes from its teacher, and the recipe that runs it.

A method is one value in `METHODS` and one experiment below `configs/recipes/` that has its name. To add one, write that
recipe (offline, small, with a comment before every block), add its value here and a section to docs/methods.md. Tests
hold the three together: what a value says about its teacher has to be what the stages of its recipe take (`taken_by`),
and what changes their first step when it is spoilt (tests/end_to_end/test_methods.py).

Knowledge and scheme are in the words of Gou et al. (2021, arXiv 2006.05525): *response* is what a teacher answers,
*feature* what is inside it, *relation* how its features of several examples lie to each other. *offline*: the teacher
is finished before the student learns; *online*: both learn together; *self*: both are the same network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from configs.schema import DistillConfig
from configs.stages import StageConfig
from configs.task_experiment import TaskDistillConfig
from configs.task_stages import TaskStageConfig

RECIPES = Path(__file__).parent / "recipes"
"""Where the experiments of the methods lie."""

Knowledge = Literal["response", "feature", "relation"]
Scheme = Literal["offline", "online", "self"]
Taken = Literal["text", "topk", "label", "logits", "states", "scores", "distribution", "afresh", "inside"]
"""Something that a method takes from its teacher."""

KEPT: Mapping[Taken, str] = MappingProxyType(
    {
        "text": "its answers",
        "topk": "its log-probabilities, token by token",
        "label": "its label of a text",
        "logits": "its logits of a text",
        "states": "its states at one place of a text",
    }
)
"""What lies in the cache once it was asked for, in words."""

LIVE: Mapping[Taken, str] = MappingProxyType(
    {
        "scores": "its log-probabilities of what the student writes",
        "distribution": "its whole distribution, token by token",
        "afresh": "its logits of texts that are changed anew in every epoch",
        "inside": "its states at every token, or its attention",
    }
)
"""What the teacher has to be there for while the student learns, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method: what it is called, who published it, and what it takes from its teacher."""

    name: str
    title: str
    paper: str
    knowledge: tuple[Knowledge, ...]
    takes: frozenset[Taken]
    scheme: Scheme = "offline"

    @property
    def kept(self) -> tuple[str, ...]:
        """What of that the cache keeps, in words; a second experiment pays nothing for it."""
        return tuple(words for taken, words in KEPT.items() if taken in self.takes)

    @property
    def live(self) -> tuple[str, ...]:
        """What the teacher is asked for while the student learns, in words."""
        return tuple(words for taken, words in LIVE.items() if taken in self.takes)

    @property
    def recipe(self) -> Path:
        """The experiment that runs it."""
        return RECIPES / f"{self.name}.yaml"


METHODS: tuple[Method, ...] = (
    Method(
        name="seqkd",
        title="Sequence-level distillation",
        paper="Kim and Rush 2016, arXiv 1606.07947",
        knowledge=("response",),
        takes=frozenset({"text"}),
    ),
    Method(
        name="word-kd",
        title="Token-level distillation",
        paper="Hinton et al. 2015, arXiv 1503.02531",
        knowledge=("response",),
        takes=frozenset({"topk"}),
    ),
    Method(
        name="gkd",
        title="GKD: on-policy, Jensen-Shannon",
        paper="Agarwal et al. 2024, arXiv 2306.13649",
        knowledge=("response",),
        takes=frozenset({"topk", "scores"}),
    ),
    Method(
        name="distillm",
        title="DistiLLM: skewed divergence, replayed samples",
        paper="Ko et al. 2024, arXiv 2402.03898",
        knowledge=("response",),
        takes=frozenset({"topk", "scores"}),
    ),
    Method(
        name="minillm",
        title="MiniLLM: reverse KL by policy gradient",
        paper="Gu et al. 2024, arXiv 2306.08543",
        knowledge=("response",),
        takes=frozenset({"topk", "scores"}),
    ),
    Method(
        name="distilbert-decoder",
        title="DistilBERT for decoders, on plain text",
        paper="Sanh et al. 2019, arXiv 1910.01108",
        knowledge=("response", "feature"),
        takes=frozenset({"distribution", "inside"}),
    ),
    Method(
        name="context-distillation",
        title="Context distillation: a teacher that is told more",
        paper="Snell et al. 2022, arXiv 2209.15189",
        knowledge=("response",),
        takes=frozenset({"topk"}),
        scheme="self",
    ),
    Method(
        name="uld",
        title="Across tokenizers: probabilities by rank, likelihood of spans",
        paper="Boizard et al. 2024, arXiv 2402.12030",
        knowledge=("response",),
        takes=frozenset({"text", "topk"}),
    ),
    Method(
        name="several-text-teachers",
        title="Several language models as teachers",
        paper="Hinton et al. 2015, arXiv 1503.02531",
        knowledge=("response",),
        takes=frozenset({"topk"}),
    ),
    Method(
        name="tang",
        title="A BiLSTM that learns logits of changed texts",
        paper="Tang et al. 2019, arXiv 1903.12136",
        knowledge=("response",),
        takes=frozenset({"logits"}),
    ),
    Method(
        name="beyer",
        title="Patience: many views of each text, in turn",
        paper="Beyer et al. 2022, arXiv 2106.05237",
        knowledge=("response",),
        takes=frozenset({"logits"}),
    ),
    Method(
        name="pkd",
        title="Patient KD",
        paper="Sun et al. 2019, arXiv 1908.09355",
        knowledge=("response", "feature"),
        takes=frozenset({"logits", "states"}),
    ),
    Method(
        name="rkd",
        title="RKD: distances and angles of texts",
        paper="Park et al. 2019, arXiv 1904.05068",
        knowledge=("response", "relation"),
        takes=frozenset({"logits", "states"}),
    ),
    Method(
        name="xtremedistil",
        title="XtremeDistil: stages, thawed layer by layer",
        paper="Mukherjee and Awadallah 2020, arXiv 2004.05686",
        knowledge=("response", "feature"),
        takes=frozenset({"logits", "states"}),
    ),
    Method(
        name="distilbert",
        title="DistilBERT: hidden tokens of plain text",
        paper="Sanh et al. 2019, arXiv 1910.01108",
        knowledge=("response", "feature"),
        takes=frozenset({"distribution", "inside", "logits"}),
    ),
    Method(
        name="tinybert",
        title="TinyBERT: layer by layer, on plain text and on a task",
        paper="Jiao et al. 2020, arXiv 1909.10351",
        knowledge=("response", "feature"),
        takes=frozenset({"inside", "logits"}),
    ),
    Method(
        name="self-distillation",
        title="Born-again networks",
        paper="Furlanello et al. 2018, arXiv 1805.04770",
        knowledge=("response",),
        takes=frozenset({"logits"}),
        scheme="self",
    ),
    Method(
        name="several-teachers",
        title="An ensemble of teachers",
        paper="Hinton et al. 2015, arXiv 1503.02531",
        knowledge=("response",),
        takes=frozenset({"logits"}),
    ),
    Method(
        name="futami",
        title="A teacher that sees more than its student",
        paper="Futami et al. 2020, arXiv 2008.03822",
        knowledge=("response",),
        takes=frozenset({"logits"}),
    ),
)
"""Every method that has a recipe, language models first."""


def taken_by(config: DistillConfig | TaskDistillConfig) -> frozenset[Taken]:
    """What the students of an experiment take from their teacher, by what their stages say about themselves."""
    if isinstance(config, TaskDistillConfig):
        students = config.students.values()
        return frozenset().union(
            *(_of_task(each) for one in students for each in one.stages),
            *(_of_general(each) for one in students for each in one.general),
        )
    return frozenset().union(*(_of_model(each) for one in config.students.values() for each in one.stages))


def _of_model(stage: StageConfig) -> frozenset[Taken]:
    found: set[Taken] = {"inside"} if stage.features else set()
    if stage.teacher == "live":
        found.add("distribution")
    elif stage.rollout is not None:
        found.add("scores")
        if stage.rollout.share < 1.0:
            # The rest of the sequences are the teacher's own, with what the cache has of them.
            found.add("topk")
    elif stage.needs_cached:
        found.add("topk")
    elif stage.source == "teacher":
        found.add("text")
    return frozenset(found)


def _of_general(stage: TaskStageConfig) -> frozenset[Taken]:
    """Beside general stages the teacher is there, whatever they take of it."""
    found: set[Taken] = {"inside"} if stage.features else set()
    return frozenset(found | ({"distribution"} if stage.soft_weight else set()))


def _of_task(stage: TaskStageConfig) -> frozenset[Taken]:
    found: set[Taken] = {"states" if term.is_kept else "inside" for term in stage.features}
    needs = stage.needs
    if needs == "label" or needs == "logits":
        found.add(needs if stage.teacher == "cache" else "afresh")
    return frozenset(found)
