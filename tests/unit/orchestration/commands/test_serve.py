"""What the door is told of each teacher before an engine starts (whole: tests/slow/test_serve.py)."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from configs import ConfigError, load_config
from configs.serving import ServeConfig
from orchestration.cluster.serving_rules import ScreenRules
from orchestration.commands.serve import require_free, serve_teachers, served_teachers
from orchestration.inputs.real_paths import resolve_paths
from orchestration.inputs.teachers import open_teachers
from orchestration.plan.hardware import Hardware, HostMemory
from teacher_server.http.guard import TokenStore

TINY = Path(__file__).resolve().parents[4] / "configs" / "tiny.yaml"
HERE = Hardware("cpu", cpus=2, memory=HostMemory(16.0, 16.0))


def test_a_teacher_is_served_as_it_is_asked_in_a_fill(tmp_path: Path) -> None:
    roots = [f"runtime.{root}={tmp_path / root}" for root in ("cache_root", "models_root", "run_root")]
    serve = ["runtime.serve.most_waiting_tokens=5000", "runtime.serve.commit_every_s=2.5", "teacher.licence=mit"]
    config = load_config(TINY, overrides=[*roots, *serve])
    config = resolve_paths(config, config_dir=TINY.parent)
    teachers = open_teachers(config)
    (served,) = served_teachers(config, teachers, hardware=HERE, log_dir=tmp_path).values()
    terms, facts, files = served.terms, served.facts, teachers["teacher"].files
    assert (terms.vocab, terms.most_k, terms.licence) == (261, 16, "mit")
    assert (terms.most_waiting_tokens, terms.commit_every_s) == (5000, 2.5)
    assert (facts.identity, facts.max_model_len, facts.stop_ids) == (teachers["teacher"].identity, 512, files.stop_ids)
    assert facts.vocab_sha256 == files.vocab_sha256 and len(files.vocab_sha256) == 64
    assert served.spec.max_logprobs == 16 and served.spec.model_dir == files.directory.resolve()
    # Long enough to show a shift by one, and of this teacher's tokens.
    assert all(len(prompt) > 16 and max(prompt) < 261 for prompt in served.check_prompts)
    assert len(set(served.check_prompts)) == 2

    small = Hardware("gpu", nodes=1, gpus_per_node=1, gpu_memory_gib=0.01)
    with pytest.raises(ConfigError, match="GiB"):
        served_teachers(config, teachers, hardware=small, log_dir=tmp_path)


def test_an_address_that_is_taken_or_is_none_is_refused_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{port} cannot be listened at \(Address already in use\)"):
            require_free(ServeConfig(port=port))
    require_free(ServeConfig(port=port))
    with pytest.raises(ConfigError, match="cannot be listened at"):
        require_free(ServeConfig(host="192.0.2.1", certificate=Path("c"), private_key=Path("k")))


def test_a_door_does_not_lead_to_another_door(tmp_path: Path) -> None:
    config = load_config(TINY, overrides=["teacher.serve=https://teacher.example:8100"])
    with pytest.raises(ConfigError, match=r"^teacher answers behind teacher\.example:8100: a door leads to engines"):
        serve_teachers(config, config_dir=TINY.parent, store=TokenStore(tmp_path / "tokens.json"))
    assert not list(tmp_path.iterdir())


def test_a_door_has_no_engines_for_a_guard(tmp_path: Path) -> None:
    guard = "content={guard: {model: {path: somewhere}, unsafe: [unsafe], safe: [safe]}}"
    with pytest.raises(ConfigError, match=r"^content\.guard is asked by runs, .*: serve a configuration without it"):
        serve_teachers(
            load_config(TINY, overrides=[guard]), config_dir=TINY.parent, store=TokenStore(tmp_path / "tokens.json")
        )
    assert not list(tmp_path.iterdir())


def test_what_the_experiment_would_not_ask_is_refused_at_its_door(tmp_path: Path) -> None:
    (tmp_path / "blocked.txt").write_text("nutmeg")
    roots = [f"runtime.{root}={tmp_path / root}" for root in ("cache_root", "models_root", "run_root")]
    content = f"content={{blocklist: {tmp_path / 'blocked.txt'}}}"
    config = resolve_paths(load_config(TINY, overrides=[*roots, content]), config_dir=TINY.parent)
    teachers = open_teachers(config)
    (served,) = served_teachers(config, teachers, hardware=HERE, log_dir=tmp_path).values()
    assert served.content == config.content and served.content is not None
    files = teachers["teacher"].files
    rules = ScreenRules(served.privacy, served.content, text=lambda ids: str(files.tokenizer.decode(ids)))
    assert rules.why_unasked(files.tokenizer("some nutmeg")["input_ids"]) == "it holds a phrase of the blocklist"
    (tmp_path / "blocked.txt").unlink()
    with pytest.raises(ConfigError, match=r"content\.blocklist"):
        served_teachers(config, teachers, hardware=HERE, log_dir=tmp_path)
