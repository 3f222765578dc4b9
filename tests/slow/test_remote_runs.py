"""A whole experiment whose teacher is a real `vllm serve` that somebody else started."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from killed_drivers import DriverPlace, newly_asked
from vllm_server import vllm_server

from configs.schema import ModelShape
from orchestration.inputs.random_models import make_random

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(3000)]

TINY = Path(__file__).parents[2] / "configs/tiny.yaml"
KEY, KEY_ENV = "sk-of-the-server", "STILLROOM_TEST_KEY"
# Without rows of padding no sequence of a student is lost to them.
SHAPE = ModelShape(layers=2, hidden=64, heads=2, kv_heads=2, mlp=128, vocab=261, max_positions=512)


def experiment(root: Path, tokenizer: Path) -> Path:
    """tiny.yaml with a teacher that somebody else serves, and students that are not cut out of it."""
    config: dict[str, Any] = yaml.safe_load(TINY.read_text())
    for split in ("train", "dev", "test"):
        config["data"][split]["path"] = str(TINY.parent / config["data"][split]["path"])
    declared = {"base_url": "http://127.0.0.1:1/v1", "model": "noise", "revision": "3", "key_env": KEY_ENV}
    config["teacher"] = {"model": {"path": str(tokenizer)}, "openai": declared, "top_k": 16}
    for student in config["students"].values():
        student["init"] = {"model": {"random": SHAPE.model_dump(exclude_none=True), "seed": 5}}
    file = root / "remote.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


def at(url: str) -> str:
    return f"teacher.openai.base_url={url}"


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def test_a_run_through_a_server_of_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, other = (make_random(SHAPE, seed=seed, models_root=tmp_path / "served") for seed in (3, 4))
    bare = tmp_path / "bare"
    shutil.copytree(served, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    root = tmp_path / "place"
    root.mkdir()
    place = DriverPlace(root, experiment(tmp_path, bare))
    monkeypatch.setenv(KEY_ENV, KEY)
    try:
        with vllm_server(served, key=KEY, max_model_len=512, log=tmp_path / "log") as url:
            printed = place.finish(at(url))
        assert "noise behind 127.0.0.1" in printed and "up to 20 log-probabilities a token" in printed
        rows = {row["name"]: row for row in place.came_to()["rows"]}
        assert list(rows) == ["teacher", "untouched", "seqkd", "kd"]
        _assert_marked(root)
        assert [path for path in files_below(root) if KEY.encode() in path.read_bytes()] == []

        # Nobody serves it any more, and the key is gone: whoever has the rows asks nobody.
        monkeypatch.delenv(KEY_ENV)
        again = place.finish("runtime.run_root=again", command="fill")
        assert newly_asked(again) == 0 and "Nothing to ask" in again

        # Under the same name another model is served.
        monkeypatch.setenv(KEY_ENV, KEY)
        cache = place.cache()
        assert cache is not None
        held = cache.stats().records
        with vllm_server(other, key=KEY, max_model_len=512, log=tmp_path / "log") as url:
            process = place.start(at(url), "data.train.limit=30", command="fill")
            refused = process.communicate(timeout=900)[0]
        assert process.returncode == 1, refused
        assert "is not the model any more" in refused and "teacher.openai.epoch" in refused
        assert "Traceback" not in refused
        cache.refresh()
        assert cache.stats().records == held
    finally:
        place.clear()


def _assert_marked(root: Path) -> None:
    """Everywhere where somebody reads who the teacher was."""
    manifests = list((root / "cache").rglob("manifests/*.json"))
    assert manifests and all('"unverifiable"' in path.read_text() for path in manifests)
    (run,) = (root / "runs").glob("tiny-*")
    pages = [path.read_text() for path in run.glob("*.html")]
    assert pages and all("unverifiable" in page for page in pages)
    cards = [path.read_text() for path in (root / "runs").rglob("README.md")]
    marked = [card for card in cards if "noise (revision 3, as 127.0.0.1 declares it; unverifiable)" in card]
    assert len(marked) >= 2
