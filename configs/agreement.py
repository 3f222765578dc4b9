"""What the blocks of an experiment ask of one another: contradictions, each with both values and the cure.

Blocks look after themselves; here is what no block can see alone. Whatever needs files or hardware is looked at in
`orchestration`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.objectives import names_where
from configs.runtime import EngineSettings
from configs.stages import StageConfig
from configs.teachers import key_of_teacher, require_combined
from configs.text_teachers import require_combinable

if TYPE_CHECKING:
    from configs.schema import DistillConfig

RESERVED_NAMES = frozenset({"pipeline", "fill", "teacher", "untouched"})
"""Names of runs and table rows that are not students."""


def require_agreement(config: DistillConfig) -> None:
    """Refuse an experiment whose blocks contradict one another.

    Raises:
        ValueError: the first contradiction that was found.
    """
    taken = RESERVED_NAMES & set(config.students)
    if taken:
        raise ValueError(f"students.{min(taken)} has a name that the comparison uses itself: choose another")
    _teachers_exist(config)
    require_combined(config.teachers, config.combine, taken=RESERVED_NAMES | set(config.students))
    require_combinable(
        config.teachers, config.combine, students=config.students, exposure=bool(config.evaluation.exposure)
    )
    _gold_answers_there(config)
    _seeds_differ(config)
    _lengths_fit(config)
    _context_arrives(config)
    _prompts_there(config)
    _plain_text_there(config)
    _answers_for_views(config)
    _beliefs_for_stages(config)
    _paid_once(config)
    _weights_last(config)
    _canaries_reach(config)


def _gold_answers_there(config: DistillConfig) -> None:
    """Stages that learn gold answers, or filter by them, have some."""
    gold = [
        (name, "source=gold" if stage.source == "gold" else f"filters.min_rouge_l={stage.filters.min_rouge_l}")
        for name, student in config.students.items()
        for stage in student.stages
        if stage.source == "gold" or stage.filters.min_rouge_l is not None
    ]
    if gold and config.data.response_field is None and config.data.messages_field is None:
        raise ValueError(
            f"students.{gold[0][0]} has {gold[0][1]} but data.response_field and data.messages_field are not set: "
            "name the field with the answers, or do without them"
        )


def _seeds_differ(config: DistillConfig) -> None:
    """Another seed gives another answer."""
    seeds = config.evaluation.seeds
    if seeds is not None and seeds > 1 and config.generation.temperature == 0.0:
        raise ValueError(
            f"evaluation.seeds={seeds} with generation.temperature=0.0 gives the same answer under every seed: "
            "raise temperature or remove evaluation.seeds"
        )


def _canaries_reach(config: DistillConfig) -> None:
    """Canaries are planted where a student can learn them, and nobody else is shown them."""
    if config.canaries is None:
        return
    sources = {stage.source for student in config.students.values() for stage in student.stages}
    if not config.canary_places:
        raise ValueError(
            "audit.canaries stand in prompts and answers, and all stages learn plain text: add a stage with "
            "source: teacher or gold, or remove audit.canaries"
        )
    if "answer" in config.canary_places and "gold" not in sources:
        raise ValueError(
            "audit.canaries.where names answer, and no stage has source: gold, so nobody would learn them: name "
            "prompt, or remove where"
        )
    shown = {
        "teacher_context shows rows beside others": config.teacher_context is not None,
        "combine.kind=route wants a field that planted rows lack": config.route is not None,
    }
    reason = next((given for given, holds in shown.items() if holds), None)
    if reason is not None:
        raise ValueError(f"audit.canaries are planted rows, and {reason}: remove one of them")


def _weights_last(config: DistillConfig) -> None:
    """A rollout ahead may be begun anew when the workers have moved on; weights that are only sent are gone."""
    for name, student in config.students.items():
        for number, stage in enumerate(student.stages):
            ahead = stage.rollout is not None and stage.rollout.ahead
            if ahead and config.runtime.training.weight_sync == "broadcast":
                raise ValueError(
                    f"students.{name}.stages.{number}.rollout.ahead=true needs weights that last while the student "
                    "learns on, which runtime.training.weight_sync=broadcast does not keep: set weight_sync: files"
                )


def _lengths_fit(config: DistillConfig) -> None:
    """Every engine also answers the test prompts and writes rollouts, so the longest limit counts for all."""
    limits = config.answer_limits()
    longest = max(limits, key=lambda key: limits[key])
    # One more than the sequence: an engine refuses to score a sequence as long as its limit.
    needed = config.data.max_prompt_tokens + limits[longest] + 1
    for role in ("teacher_engine", "student_engine") if config.has_engines else ("student_engine",):
        engine: EngineSettings = getattr(config.runtime, role)
        if needed > engine.max_model_len:
            raise ValueError(
                f"data.max_prompt_tokens={config.data.max_prompt_tokens} + {longest}={limits[longest]} + 1 exceed "
                f"runtime.{role}.max_model_len={engine.max_model_len}: raise it to {needed} or lower the others"
            )


def _context_arrives(config: DistillConfig) -> None:
    """What the teacher sees beside a row is rendered once, with the row, and reaches it through the cache alone."""
    if config.teacher_context is None:
        return
    examples, data = config.teacher_context.examples, config.data
    if config.teachers:
        raise ValueError(
            f"teachers names {', '.join(config.teachers)}, and teacher_context is shown to one teacher alone: remove "
            "one of them"
        )
    if examples is not None and data.response_field is None and data.messages_field is None:
        raise ValueError(
            f"teacher_context.examples.count={examples.count} shows rows with their gold answers, but "
            "data.response_field and data.messages_field are not set: name the field with the answers, or remove "
            "examples"
        )
    if config.evaluation.exposure:
        raise ValueError(
            "evaluation.exposure=true has the teacher read prompts as students see them, and teacher_context shows "
            "it more: remove one of them"
        )
    for name, student in config.students.items():
        for number, stage in enumerate(student.stages):
            given = _without_context(stage)
            if student.teacher is None and given is not None:
                raise ValueError(
                    f"students.{name}.stages.{number} has {given}, where the teacher does not see teacher_context: "
                    "remove it, learn from the cache (source: teacher or gold, teacher: cache), or remove "
                    "teacher_context"
                )


def _prompts_there(config: DistillConfig) -> None:
    """Stages that learn answers have prompts, to learn from and to be measured by."""
    missing = [split for split in ("train", "dev") if split not in config.data.splits]
    for name, student in config.students.items():
        for number, stage in enumerate(student.stages):
            if missing and stage.source != "plain":
                raise ValueError(
                    f"students.{name}.stages.{number}.source={stage.source} but data.{missing[0]} is not set: name "
                    "its prompts, or learn plain text alone (source: plain)"
                )


def _plain_text_there(config: DistillConfig) -> None:
    """Stages on plain text have some, and the teacher's engine reads its windows."""
    plain, limit = config.data.plain, config.runtime.teacher_engine.max_model_len
    micro = config.runtime.training.micro_batch_tokens
    for name, student in config.students.items():
        for number, stage in enumerate(student.stages):
            if stage.source == "plain" and plain is None:
                raise ValueError(
                    f"students.{name}.stages.{number}.source=plain but data.plain is not set: name its texts, or "
                    "choose another source"
                )
    # One more than the window: an engine refuses to score a sequence as long as its limit.
    if plain is not None and plain.max_tokens + 1 > limit and config.has_engines:
        raise ValueError(
            f"data.plain.max_tokens={plain.max_tokens} + 1 exceed runtime.teacher_engine.max_model_len={limit}: "
            f"raise it to {plain.max_tokens + 1} or lower the first"
        )
    if plain is not None and plain.max_tokens - 1 > micro:
        raise ValueError(
            f"data.plain.max_tokens={plain.max_tokens} is more than runtime.training.micro_batch_tokens={micro} "
            "holds: raise it or lower the first"
        )


def _answers_for_views(config: DistillConfig) -> None:
    """Every view of a prompt is an answer that was asked for."""
    samples = config.generation.samples_per_prompt
    for name, student in config.students.items():
        for number, stage in enumerate(student.stages):
            if stage.views is not None and stage.views > samples:
                raise ValueError(
                    f"students.{name}.stages.{number}.views={stage.views} is more than "
                    f"generation.samples_per_prompt={samples}, the answers to a prompt: raise it, or lower views"
                )


def _beliefs_for_stages(config: DistillConfig) -> None:
    """No stage learns, or is measured by, what a teacher believes of whom nothing but texts is kept."""
    mute = next((name for name, teacher in config.every_teacher.items() if teacher.top_k == 0), None)
    if mute is None:
        return
    key = f"{key_of_teacher(mute)}.top_k=0"
    if config.teachers and config.route is None:
        raise ValueError(f"{key} keeps no beliefs, and those of all teachers are mixed: combine by kind: route")
    for name, student in config.students.items():
        for number, stage in enumerate(student.stages):
            given = {
                f"objective={stage.objective}": stage.needs_cached,
                "rollout": stage.rollout is not None,
                "select=dev_kl": stage.select == "dev_kl",
            }
            wanted = next((what for what, holds in given.items() if holds), None)
            if wanted is not None:
                raise ValueError(
                    f"students.{name}.stages.{number} has {wanted}, which reads what a teacher believes, and {key} "
                    "keeps none of it: raise top_k to what the server gives, or learn the texts alone "
                    f"(objective: {names_where(lambda each: not each.needs_logprobs)})"
                )


def _paid_once(config: DistillConfig) -> None:
    """What is paid by the token has one price, and a limit of money something that is paid."""
    priced = next((name for name, teacher in config.every_teacher.items() if teacher.price is not None), None)
    limit, flat = config.budgets.max_teacher_money, config.prices and config.prices.teacher_million_tokens
    if priced is None and limit is not None:
        raise ValueError(
            f"budgets.max_teacher_money={limit:g} and no teacher has a price: set teacher.openai.price, or remove it"
        )
    if priced is not None and flat is not None:
        raise ValueError(
            f"prices.teacher_million_tokens={flat:g} and {key_of_teacher(priced)}.openai.price are prices of the "
            "same tokens: remove one of them"
        )


def _teachers_exist(config: DistillConfig) -> None:
    """A teacher assistant stands above the students that it teaches, so nobody teaches himself by a detour."""
    above: list[str] = []
    for name, student in config.students.items():
        if student.teacher is not None and student.teacher not in above:
            raise ValueError(
                f"students.{name}.teacher={student.teacher} is not a student listed above {name}: "
                f"choose one of {', '.join(above) or 'none, it is the first'}, or leave it out for the teacher"
            )
        above.append(name)


def _without_context(stage: StageConfig) -> str | None:
    """What of a stage has a teacher read something else than the rows that were rendered for it."""
    reasons = {
        "a rollout": stage.rollout is not None,
        "source=plain": stage.source == "plain",
        "teacher=live": stage.teacher == "live",
        "features": bool(stage.features),
    }
    return next((given for given, holds in reasons.items() if holds), None)
