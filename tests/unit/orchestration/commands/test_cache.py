"""`distill cache ...` as a user meets it: real caches, the printed lines, the JSON, the refusals."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from signal_builders import CLASSES, TAGS, ask, respond
from task_pipeline_builders import task_place

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherIdentity, TeacherRecord
from cache.disk.local_storage import LocalStorage
from cache.failures import Failures
from orchestration.commands.main import main
from teacher_server import FakeTeacher

IDENTITIES = [TeacherIdentity(weights_sha256=letter * 64, config_sha256="c" * 64) for letter in "ab"]
DIGESTS = [identity.digest() for identity in IDENTITIES]

Distill = Callable[..., tuple[int, str, str]]


@pytest.fixture
def distill(capsys: pytest.CaptureFixture[str]) -> Distill:
    """Runs a command; the exit code and what it printed on both streams."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache of two teachers, with two segments of each and a view of the first."""
    for number, identity in enumerate(IDENTITIES):
        requests = [GenerateRequest((3, i), (2,), max_new_tokens=6) for i in range(3, 6 + number)]
        said = [
            (record, requests[at]) for at, record in FakeTeacher(identity, vocab=64, eos_id=2).generate(requests, k=4)
        ]
        cache = TeacherCache.open(tmp_path / "cache", identity, provenance={"model": f"teacher {number}"})
        for part in (said[:2], said[2:]):
            cache.put(part, vocab=64, licence="cc0-1.0")  # type: ignore[arg-type]
        if number == 0:
            keys = [key for key in cache.lookup(requests) if key is not None]
            cache.view(keys, dataset="teacher-train", k=4)
    return tmp_path / "cache"


def flip(root: Path) -> Path:
    (path, *_) = sorted((root / DIGESTS[1] / "segments").glob("*/topk_ids/c/*/*"))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 0xFF]))
    return path


def test_every_teacher_is_listed(root: Path, distill: Distill) -> None:
    code, printed, _ = distill("cache", "ls", "--cache-root", root)
    assert code == 0
    for number, digest in enumerate(DIGESTS):
        (line,) = [line for line in printed.splitlines() if digest[:12] in line]
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells[1:3] == [f"teacher {number}", str(3 + number)]


def test_everything_about_a_teacher(root: Path, distill: Distill) -> None:
    code, printed, _ = distill("cache", "info", DIGESTS[0][:8], "--cache-root", root)
    assert code == 0
    assert f"teacher {DIGESTS[0]}\n" in printed
    assert DIGESTS[1] not in printed
    for text in ("cc0-1.0", "topk-u8 3", "model=teacher 0", "4 of 64", "teacher-train", "mean tail mass"):
        assert text in printed


@pytest.mark.parametrize("broken", ["pipe", "text", "deep", "another teacher's"])
def test_a_teacher_that_cannot_be_read_is_named_and_the_others_are_shown(
    root: Path, distill: Distill, broken: str
) -> None:
    path = root / DIGESTS[1] / "identity.json"
    other = (root / DIGESTS[0] / "identity.json").read_bytes()
    path.unlink()
    if broken == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes({"text": b"\x1b[31mno", "deep": b"[" * 100_000}.get(broken, other))
    for action in ("ls", "info", "verify", "compact", "gc"):
        code, printed, error = distill("cache", action, "--cache-root", root)
        assert (code, "Traceback" in error, "\x1b" in error) == (1, False, False)
        assert DIGESTS[0][:12] in printed or "every digest agrees" in printed
        assert str(path) in error.replace("\n", "") or broken == "another teacher's"


def test_verify_looks_at_the_cache_of_the_config_that_is_named(
    root: Path, tmp_path: Path, distill: Distill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/cache").mkdir(parents=True)  # what it looks at when nothing is named
    tiny = Path(__file__).resolve().parents[4] / "configs" / "tiny.yaml"
    flip(root)
    assert distill("cache", "verify")[0] == 0
    for named in (("--set", f"runtime.cache_root={root}"), ("--cache-root", root)):
        code, printed, _ = distill("cache", "verify", "--config", tiny, *named)
        assert code == 1 and DIGESTS[1][:12] in printed


def test_verify_hashes_every_teacher_of_a_config(tmp_path: Path, distill: Distill) -> None:
    config = tiny_config(tmp_path)
    written = yaml.safe_load(config.read_text())
    first = written["teacher"]
    written["teachers"] = {"second": first | {"model": first["model"] | {"seed": 1}}}
    config.write_text(yaml.safe_dump(written))
    arguments = ("cache", "verify", "--teacher", "--config", config)
    code, printed, _ = distill(*arguments)
    assert code == 0 and all(f"{name}: every weight is what identity" in printed for name in ("teacher", "second"))
    found = json.loads(distill(*arguments, "--json")[1])
    assert [each["name"] for each in found] == ["teacher", "second"]
    code, printed, _ = distill(*arguments, found[1]["read"][:6])
    assert code == 0 and "second: every weight" in printed and "teacher: every weight" not in printed


def test_verify_deep_finds_what_every_digest_agrees_with(root: Path, distill: Distill) -> None:
    code, printed, _ = distill("cache", "verify", "--deep", "--cache-root", root)
    assert (code, "every digest agrees" in printed) == (0, True)
    manifest_path = sorted((root / DIGESTS[0] / "manifests").glob("*.json"))[0]
    keys_path = manifest_path.with_suffix(".keys")
    outer = json.loads(manifest_path.read_text())
    body, keys = outer["body"], bytearray(keys_path.read_bytes())
    after = 32 * body["rows"]
    first, second = keys[after : after + 20], keys[after + 20 : after + 40]
    keys[after : after + 40] = second + first
    keys_path.write_bytes(keys)
    body["keys"]["sha256"] = hashlib.sha256(keys).hexdigest()
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    manifest_path.write_text(f'{{"body":{text},"sha256":"{hashlib.sha256(text.encode()).hexdigest()}"}}')
    assert distill("cache", "verify", "--cache-root", root)[0] == 0
    code, printed, error = distill("cache", "verify", "--deep", "--cache-root", root)
    assert code == 1
    assert manifest_path.stem in printed + error and "damaged objects: 1" in printed


def test_rollouts_are_listed_apart(root: Path, distill: Distill) -> None:
    (said,) = FakeTeacher(IDENTITIES[1], vocab=64, eos_id=2).score([ScoreRequest((3, 9, 9, 2), 2)], k=4)
    assert isinstance(said[1], TeacherRecord)
    record = replace(said[1], policy_version=5)
    TeacherCache.open(root, IDENTITIES[1]).put([record], vocab=64, rollout="mini/student")
    found = json.loads(distill("cache", "ls", "--json", "--cache-root", root)[1])
    sizes = {item["identity"]: item["rollouts"] for item in found}
    assert sizes[DIGESTS[0]] == {}
    assert sizes[DIGESTS[1]].keys() == {"mini/student"}
    shown = f"{sizes[DIGESTS[1]]['mini/student'] / 1024:,.1f} KiB"
    lines = distill("cache", "ls", "--cache-root", root)[1].splitlines()
    assert [shown in line for line in lines if any(digest[:12] in line for digest in DIGESTS)] == [
        digest == DIGESTS[1] for digest in sorted(DIGESTS)
    ]
    assert f"{shown} by mini/student" in distill("cache", "info", DIGESTS[1], "--cache-root", root)[1]


def test_signals_are_listed_proved_merged_and_moved(root: Path, tmp_path: Path, distill: Distill) -> None:
    cache = TeacherCache.open(root, IDENTITIES[1])
    asked = [ask([3, text, 5], signal) for text in (8, 9) for signal in (CLASSES, TAGS)]
    records = [respond(request, identity=IDENTITIES[1]) for request in asked]
    for part in (records[:2], records[2:]):
        cache.signals.put(part, encoding="signal-u8", licence="cc0-1.0", provenance={"model": "teacher 1"})
    (found,) = json.loads(distill("cache", "info", DIGESTS[1], "--json", "--cache-root", root)[1])
    assert (found["records"], found["signals"]["records"]) == (4, 4)
    assert found["signals"]["names"] == {"class_logits": 2, "tag_logits": 2}
    printed = distill("cache", "info", DIGESTS[1], "--cache-root", root)[1]
    assert "4 (class_logits 2, tag_logits 2), " in printed and "signal-u8 0.0" in printed
    listing = distill("cache", "ls", "--cache-root", root)[1]
    assert f"4 of {found['signals']['bytes_per_row']:,.0f} B" in listing
    assert distill("cache", "verify", "--deep", "--cache-root", root)[0] == 0
    printed = distill("cache", "compact", DIGESTS[1], "--cache-root", root)[1]
    assert "4 segments merged into 2" in printed, "signals with signals, sequences with sequences"
    distill("cache", "gc", DIGESTS[1], "--grace", 0, "--cache-root", root)
    archive = tmp_path / "teacher.tar"
    assert distill("cache", "export", DIGESTS[1], archive, "--cache-root", root)[0] == 0
    assert distill("cache", "import", archive, "--cache-root", tmp_path / "elsewhere")[0] == 0
    there = TeacherCache.open(tmp_path / "elsewhere", IDENTITIES[1])
    assert (there.stats().signals, there.signals.missing(asked)) == (4, ())


def test_json_has_the_same_for_every_teacher(root: Path, distill: Distill) -> None:
    for action in ("ls", "info"):
        found = json.loads(distill("cache", action, "--json", "--cache-root", root)[1])
        assert {item["identity"]: item["records"] for item in found} == dict(zip(DIGESTS, (3, 4), strict=True))
    (view,) = [data for item in found for data in item["datasets"]]
    assert (view["dataset"], view["rows"], view["k"]) == ("teacher-train", 3, 4)
    assert 0 < view["mean_tail_mass"] < 1


def test_a_sound_cache_is_said_to_be_sound(root: Path, distill: Distill) -> None:
    code, printed, _ = distill("cache", "verify", "--cache-root", root)
    assert (code, printed.splitlines()[-1]) == (0, "every digest agrees")


def test_damage_names_the_teacher_the_segment_and_the_object(root: Path, distill: Distill) -> None:
    damaged = flip(root)
    code, printed, _ = distill("cache", "verify", "--cache-root", root)
    assert code == 1
    (line,) = [line for line in printed.splitlines() if line.startswith("  ! ")]
    assert line.startswith(f"  ! {DIGESTS[1][:12]}, segment {damaged.parts[-5]}: topk_ids")
    assert printed.splitlines()[-1] == "damaged objects: 1; a fill asks for their rows again"
    code, printed, _ = distill("cache", "verify", "--json", "--cache-root", root)
    assert code == 1
    assert [len(result["damaged"]) for result in json.loads(printed)] == [0, 1] or DIGESTS[0] > DIGESTS[1]


def test_merging_then_collecting(root: Path, distill: Distill) -> None:
    code, printed, _ = distill("cache", "compact", DIGESTS[1][:6], "--cache-root", root)
    assert code == 0
    assert "2 segments merged into 1" in printed
    (dry,) = json.loads(
        distill("cache", "gc", DIGESTS[1], "--dry-run", "--grace", 0, "--json", "--cache-root", root)[1]
    )["collected"]
    assert dry["dry_run"]
    assert dry["bytes"] > 0
    assert "removed" in distill("cache", "gc", DIGESTS[1], "--grace", 0, "--cache-root", root)[1]
    (found,) = json.loads(distill("cache", "info", DIGESTS[1], "--json", "--cache-root", root)[1])
    assert (found["segments"], found["tombstoned"], found["records"]) == (1, 0, 4)


def test_a_cache_moves_in_one_file(root: Path, tmp_path: Path, distill: Distill) -> None:
    archive = tmp_path / "teacher.tar"
    assert distill("cache", "export", DIGESTS[0][:10], archive, "--cache-root", root)[0] == 0
    for expected in ("2 segments taken in", "2 were here already"):
        code, printed, _ = distill("cache", "import", archive, "--cache-root", tmp_path / "elsewhere")
        assert code == 0
        assert expected in printed
    (found,) = json.loads(distill("cache", "ls", "--json", "--cache-root", tmp_path / "elsewhere")[1])
    assert (found["identity"], found["records"]) == (DIGESTS[0], 3)


def test_a_quota_refuses_or_evicts_who_is_not_pinned(root: Path, distill: Distill) -> None:
    size = sum(path.stat().st_size for path in (root / DIGESTS[0]).rglob("*") if path.is_file())
    arguments = ("cache", "gc", "--max-bytes", size + 4096, "--cache-root", root)
    code, _, error = distill(*arguments)
    assert code == 1
    assert "over the limit" in error
    code, printed, _ = distill(*arguments, "--evict")
    assert code == 0
    assert f"evicted {DIGESTS[1][:12]}" in printed
    assert [path.name for path in root.iterdir() if any(path.rglob("*.json"))] == [DIGESTS[0]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("ls", "--cache-root", "nowhere"), "--cache-root nowhere is not a directory"),
        (("info", "ffffff"), "no teacher in .* begins with ffffff: name 4 or more digits; there are "),
        (("export", "ff", "x.tar"), "begins with ff: name 4 or more digits"),
        (("gc", "--evict"), "--evict without --max-bytes"),
        (("import", "nothing.tar"), "nothing.tar"),
    ],
)
def test_a_refusal_is_one_line(
    arguments: tuple[str, ...],
    reason: str,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    distill: Distill,
) -> None:
    monkeypatch.chdir(tmp_path)
    place = () if "--cache-root" in arguments else ("--cache-root", root)
    code, printed, error = distill("cache", *arguments, *place)
    assert code in (1, 2)
    assert printed == ""
    assert error.startswith("distill: ")
    assert error.count("\n") == 1
    assert re.search(reason, error)


@pytest.mark.parametrize(
    "arguments",
    [
        ("gc", "--max-bytes", "much"),
        ("gc", "--max-bytes", "-1"),
        ("verify", "--rescore", "0"),
        ("forget", "--match", ".*"),
        ("forget", "--match", "("),
        ("forget", "--match", "(?=name)"),
        ("ls", "--cache-root", "ftp://somewhere/x"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_their_name(arguments: tuple[str, ...], distill: Distill) -> None:
    with pytest.raises(SystemExit) as refusal:
        distill("cache", *arguments)
    assert refusal.value.code == 2


@pytest.mark.parametrize("text", ["", "{}", '{"identity": {"shoe_size": 44}}'])
def test_an_identity_that_cannot_be_read_names_the_file(text: str, root: Path, distill: Distill) -> None:
    path = root / DIGESTS[0] / "identity.json"
    path.write_text(text)
    code, _, error = distill("cache", "ls", "--cache-root", root)
    assert code != 0
    assert str(path) in error


def test_a_text_is_forgotten_for_good(tmp_path: Path, distill: Distill) -> None:
    config = tiny_config(tmp_path)
    asked = ask_something(config, tmp_path)
    arguments = ("cache", "forget", "--config", config, "--match", "(?i)marguerite")
    (tmp_path / "runs" / "mlartifacts").mkdir(parents=True)
    (tmp_path / "runs" / "mlartifacts" / "table.json").write_text(json.dumps({"prompt": "M\u0061rguerite's recipe"}))
    code, printed, _ = distill(*arguments)
    assert code == 0
    assert "1 sequences and signals hold the text; add --yes" in printed
    assert "mlartifacts/table.json" in printed
    assert distill(*arguments, "--dry-run")[1] == printed
    assert (tmp_path / "runs" / "mlartifacts" / "table.json").exists()
    found = json.loads(distill(*arguments, "--yes", "--json")[1])
    assert not (tmp_path / "runs" / "mlartifacts" / "table.json").exists()
    assert (len(found["sequences"]), found["removed"], found["kept_for_views"]) == (1, True, [])
    assert "no sequence" in distill(*arguments)[1]
    stored = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert asked["forgotten"].hex().encode() not in stored
    assert asked["forgotten"] not in stored
    assert asked["kept"] in stored


def test_what_could_not_be_answered_is_shown_and_forgotten_alone_or_with_a_text(
    tmp_path: Path, distill: Distill
) -> None:
    config = tiny_config(tmp_path)
    ask_something(config, tmp_path)
    (place,) = (tmp_path / "cache").iterdir()

    def fail() -> None:
        known = Failures(LocalStorage(place), identity=place.name, engine={"vllm": "1"})
        known.add({GenerateRequest((5,), stop_ids=(0,), max_new_tokens=4): "too long"})

    fail()
    assert "not answered   1 (vllm=1)" in distill("cache", "info", "--cache-root", tmp_path / "cache")[1]
    arguments = ("cache", "forget", "--config", config)
    assert "1 requests could not be answered; add --yes" in distill(*arguments, "--failures")[1]
    assert len(list((place / "failures").iterdir())) == 1
    code, printed, _ = distill(*arguments, "--failures", "--yes")
    assert code == 0 and "1 requests are forgotten and asked again" in printed
    assert "nothing is known that" in distill(*arguments, "--failures")[1]
    assert list((place / "failures").iterdir()) == []
    fail()
    found = json.loads(distill(*arguments, "--match", "nobody says this", "--yes", "--json")[1])
    assert (found["sequences"], found["failures"], found["failures_removed"]) == ([], 1, True)
    assert list((place / "failures").iterdir()) == []


def test_an_experiment_that_distils_a_task_is_taken_too(tmp_path: Path, distill: Distill) -> None:
    place = task_place(tmp_path)
    place.go("fill")
    config = tmp_path / "moods.experiment.yaml"
    config.write_text(yaml.safe_dump(place.values))
    arguments = ("cache", "forget", "--config", config, "--match", "oslo", "--break-pins")
    code, printed, _ = distill(*arguments)
    assert code == 0 and "3 sequences and signals hold the text" in printed
    code, printed, _ = distill(*arguments, "--yes")
    assert code == 0 and "3 sequences and signals are removed" in printed and "views and lessons of runs" in printed
    assert "no sequence or signal in the 1 caches" in distill(*arguments)[1]


def test_a_text_is_forgotten_by_assistants_too_and_what_is_not_searched_is_named(
    tmp_path: Path, distill: Distill
) -> None:
    config = tiny_config(tmp_path)
    asked = ask_something(config, tmp_path)
    (student, *_) = yaml.safe_load(config.read_text())["students"]
    assistant, stranger = IDENTITIES
    theirs = tell_the_same(config, assistant, model=student)
    others = tell_the_same(config, stranger, model="\x1b[31mstranger")
    os.mkfifo(tmp_path / "cache" / assistant.digest() / "manifests" / "pipe.json")
    (tmp_path / "runs").mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "runs" / "pipe.json")
    (tmp_path / "runs" / "deep.json").write_text("[" * 900 + '"Marguerite"' + "]" * 900)
    arguments = ("cache", "forget", "--config", config, "--match", "(?i)(m+)+arguerite")
    code, printed, error = distill(*arguments)
    assert code == 0
    assert "2 sequences and signals hold the text" in printed and "deep.json" in printed
    assert f"not searched: cache {stranger.digest()[:12]}" in printed + error
    assert "\x1b" not in printed + error
    found = json.loads(distill(*arguments, "--yes", "--json")[1])
    assert set(found["sequences"]) == {asked["forgotten"].hex(), theirs.hex()}
    assert found["searched"][1:] == [assistant.digest()]
    assert [other["identity"] for other in found["unsearched"]] == [stranger.digest()]
    assert TeacherCache.open(tmp_path / "cache", assistant).get_many([theirs]) == [None]
    assert None not in TeacherCache.open(tmp_path / "cache", stranger).get_many([others])


def tell_the_same(config: Path, identity: TeacherIdentity, *, model: str) -> bytes:
    """What another model says to the same prompt, in its own cache; the sequence's key."""
    from configs import load_config
    from orchestration.inputs.teachers import open_teacher

    loaded = load_config(config)
    teacher = open_teacher(loaded)
    provenance = teacher.provenance(loaded) | {"model": model}
    cache = TeacherCache.open(loaded.runtime.cache_root, identity, provenance=provenance)
    ids = tuple(teacher.files.tokenizer("Who is Marguerite?")["input_ids"])
    request = GenerateRequest(ids, teacher.files.stop_ids, max_new_tokens=4)
    source = FakeTeacher(identity, vocab=teacher.files.vocab, eos_id=teacher.files.stop_ids[0])
    ((_, record),) = source.generate([request], k=4)
    assert isinstance(record, TeacherRecord)
    cache.put([(record, request)], vocab=teacher.files.vocab)
    return bytes(record.key)


def tiny_config(place: Path) -> Path:
    """The tiny experiment, with its places below `place`."""
    shipped = Path(__file__).parents[4] / "configs" / "tiny.yaml"
    config = yaml.safe_load(shipped.read_text())
    config.setdefault("runtime", {}).update(
        cache_root=str(place / "cache"), run_root=str(place / "runs"), models_root=str(place / "models")
    )
    for split in ("train", "dev", "test"):
        config["data"][split]["path"] = str(shipped.parent / config["data"][split]["path"])
    path = place / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def ask_something(config: Path, place: Path) -> dict[str, Any]:
    """Put two sequences of the configured teacher into its cache; their keys."""
    from configs import load_config
    from orchestration.inputs.teachers import open_cache, open_teacher

    loaded = load_config(config)
    teacher = open_teacher(loaded)
    cache = open_cache(loaded, teacher)
    keys = {}
    for name, text in (("forgotten", "Who is Marguerite?"), ("kept", "Who is Peter?")):
        ids = tuple(teacher.files.tokenizer(text)["input_ids"])
        request = GenerateRequest(ids, teacher.files.stop_ids, max_new_tokens=4)
        source = FakeTeacher(teacher.identity, vocab=teacher.files.vocab, eos_id=teacher.files.stop_ids[0])
        ((_, record),) = source.generate([request], k=4)
        cache.put([(record, request)], vocab=teacher.files.vocab)  # type: ignore[list-item]
        keys[name] = bytes(record.key)  # type: ignore[union-attr]
    return keys
