"""What a model's own files say of its licence: the front matter of its card, and the papers that lie beside it."""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path

from huggingface_hub import ModelCard
from yaml import YAMLError

from configs.model_files import CARD
from configs.models import ModelSource
from configs.regular_files import UnreadableFileError, read_regular
from orchestration.inputs.models import is_at_hand, locate_model
from student_train.papers import papers_beside

CARD_BYTES = 4 * 2**20
"""No model's card is longer."""

WITHOUT_NAME = ("other", "unknown")
"""What hubs write where a licence has no short name, or nobody gave one."""


def licence_of_model(model: ModelSource, *, models_root: Path, fetch: bool) -> str | None:
    """What the card of a model says, where it has one that can be read without converting the model first."""
    if model.random is not None or _is_converted(model):
        return None
    if not fetch and not is_at_hand(model, weights=False):
        return None
    return licence_on_card(locate_model(model, models_root=models_root, weights=False))


def papers_of_model(model: ModelSource, *, models_root: Path) -> dict[str, bytes]:
    """The licence files of a model; of one that is a file in a package those of the package."""
    if model.random is not None:
        return {}
    if not _is_converted(model):
        return papers_beside(locate_model(model, models_root=models_root, weights=False))
    assert model.package is not None
    about = {Path(str(path.locate())).parent for path in files(model.package) or () if path.name == "METADATA"}
    return {name: paper for folder in about for name, paper in papers_beside(folder).items()}


def licence_on_card(directory: Path) -> str | None:
    """The licence in the front matter of a model's README.md; None where there is none that has a name."""
    try:
        text = read_regular(directory / CARD, at_most=CARD_BYTES, links="follow").decode("utf-8", errors="replace")
        data = ModelCard(text, ignore_metadata_errors=True).data
    # A card may hold anything: what is not front matter says nothing.
    except (UnreadableFileError, OSError, ValueError, YAMLError):
        return None
    licence, name = data.get("license"), data.get("license_name")
    if isinstance(licence, list):
        licence = " AND ".join(str(each) for each in licence)
    if licence in WITHOUT_NAME:
        licence = name
    return str(licence) if licence else None


def _is_converted(model: ModelSource) -> bool:
    """Whether it is one file in a package, of which nothing else is the model's."""
    return model.package is not None and str(model.file).endswith(".gguf")
