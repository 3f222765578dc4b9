"""Who changes texts for an experiment that distils a task, and what is kept of it.

What language models make is an artifact: a JSONL file below the run root with one line a copy of a row, addressed by
the model's content, the settings and the words of the rows. A second experiment on the same rows reads it and loads no
model. It counts from the moment at which its directory is sealed, so a killed run leaves nothing that is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from cache.disk.durable import large_file
from cache.protocols import Progress
from configs import ConfigError, resolve_data_path
from configs.models import Device
from configs.regular_files import open_regular
from configs.task_data import Augmentation, ByModel, Continuation, RuleAugmentation, SwappedPeople, WordReplacement
from orchestration.inputs.augment import (
    Changed,
    ChangedRow,
    ChangedText,
    HanoverTagger,
    Row,
    Texts,
    change_by_rules,
    gather,
    words_of,
)
from orchestration.inputs.augment_choices import RowWords, replace_words, write_on
from orchestration.inputs.augment_masked import MaskedWords
from orchestration.inputs.augment_swaps import change_by_swaps
from orchestration.inputs.augment_writer import CausalWriter
from orchestration.inputs.models import locate_model
from orchestration.outputs.artifacts import MADE_ANEW, Artifacts, digest_of
from orchestration.outputs.foundations import model_digest
from orchestration.outputs.kept import OutdatedError, read_directory, seal_directory

AUGMENTED = "stillroom/augmented/1"
"""Schema of what is kept, with its version."""

ROWS = "rows.jsonl"


@dataclass(frozen=True, slots=True)
class Changer:
    """Changes rows as `data.augment` says (`orchestration.inputs.task_sets.Change`).

    `tokenizer` is the teacher's, whose mask token stands for words that rules hide; models run on `device` and report
    to `report`. Relative paths of models are those of `config_dir`.
    """

    artifacts: Artifacts
    tokenizer: PreTrainedTokenizerBase
    models_root: Path
    config_dir: Path
    device: Device = "cpu"
    report: Progress | None = None

    def __call__(self, made: Augmentation, rows: Sequence[Row], texts: Texts) -> Changed:
        """The rows that come of `rows`.

        Raises:
            ConfigError: words cannot be masked, or a text with tags is to be written on.
            ModelError: the model cannot be found, or is not one of the kind.
        """
        if isinstance(made, RuleAugmentation):
            return change_by_rules(
                rows,
                texts=texts,
                rules=made,
                mask=self.tokenizer.mask_token or self.tokenizer.unk_token,
                parts=HanoverTagger() if made.same_part > 0 else None,
            )
        if isinstance(made, SwappedPeople):
            return change_by_swaps(rows, texts=texts)
        if isinstance(made, Continuation) and texts.tags is not None:
            raise ConfigError(
                f"data.augment has kind={made.kind}, and what {made.model.label} writes has none of the tags that this "
                "task has for every word: set kind: masked_lm or rules"
            )
        return gather(rows, self._by_model(made, [words_of(row, texts) for row in rows]), texts=texts)

    def _by_model(self, made: ByModel, rows: Sequence[RowWords]) -> Sequence[ChangedRow]:
        """What is kept of these rows; it is made where nothing is."""
        source = made.model
        if source.path is not None:
            path = resolve_data_path(source.path, config_dir=self.config_dir)
            source = source.model_copy(update={"path": path})
        directory = locate_model(source, models_root=self.models_root)
        digest = digest_of(
            schema=AUGMENTED,
            model=model_digest(directory, models_root=self.models_root),
            settings=made.model_dump(mode="json", exclude={"model", "of"}),
            rows=rows,
        )
        kept = self._read(digest)
        if kept is not None:
            return kept
        with self.artifacts.claim(digest, what=f"texts by {made.model.label}"):
            # Whoever held the claim until now has made it.
            kept = self._read(digest)
            if kept is None:
                kept = self._made(made, rows, directory)
                self._keep(digest, kept, made=made)
        return kept

    def _made(self, made: ByModel, rows: Sequence[RowWords], directory: Path) -> Sequence[ChangedRow]:
        label = made.model.label
        match made:
            case WordReplacement():
                model = MaskedWords(directory, label=label, device=self.device, report=self.report)
                return replace_words(rows, settings=made, candidates=model)
            case Continuation():
                writer = CausalWriter(directory, label=label, device=self.device, report=self.report)
                return write_on(rows, settings=made, writer=writer)

    def _folder(self, digest: str) -> Path:
        return self.artifacts.root / "augmented" / digest[:16]

    def _read(self, digest: str) -> Sequence[ChangedRow] | None:
        folder = self._folder(digest)
        try:
            found = read_directory(folder, schema=AUGMENTED, digest=digest, digests=self.artifacts.digests)
        except OutdatedError as error:
            self.artifacts.say(f"{error}{MADE_ANEW}")
            return None
        return None if found is None else tuple(_read_rows(folder / ROWS))

    def _keep(self, digest: str, rows: Sequence[ChangedRow], *, made: ByModel) -> None:
        folder = self._folder(digest)
        with large_file(folder / ROWS) as stream:
            for row in rows:
                line = {"row": row.place, "empty": row.empty, "texts": [text.words for text in row.texts]}
                stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        seal_directory(folder, schema=AUGMENTED, digest=digest, fields={"by": made.model.label, "kind": made.kind})


def _read_rows(path: Path) -> Iterator[ChangedRow]:
    """Rows as `Changer` keeps them. Models change no word's place, or a text without tags: each text starts at 0."""
    with open_regular(path) as stream:
        for line in stream:
            row = json.loads(line)
            texts = tuple(ChangedText(tuple(words)) for words in row["texts"])
            yield ChangedRow(row["row"], texts, empty=row["empty"])
