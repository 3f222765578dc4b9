"""The card of a model that tests made: weights from a seed are nobody's, and say so."""

from __future__ import annotations

from pathlib import Path


def save_card(model: Path, *, licence: str = "cc0-1.0", name: str | None = None) -> Path:
    """Write README.md with a licence in its front matter, as hubs read it; with `name` the licence has a short name."""
    named = "" if name is None else f"license_name: {name}\n"
    (model / "README.md").write_text(f"---\nlicense: {licence}\n{named}---\n\n# Made by a test\n", encoding="utf-8")
    return model
