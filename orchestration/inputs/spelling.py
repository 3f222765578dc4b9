"""What the tokens of a tokenizer stand for in a text, byte by byte.

Printed forms differ between families (`Ġthe`, `▁the`, `the`, `##the`, `<0xE2>`), bytes do not. Which form a tokenizer
has its decoder says: byte-level ones print every byte as a character of its own, those of SentencePiece write a blank
as `▁` and some bytes as `<0x..>`, those of WordPiece mark what goes on within a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from configs import ModelError
from orchestration.inputs.models import ModelFiles
from student_train.losses.alignment import TokenBytes, token_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLANK = "▁"
"""How SentencePiece prints a blank (U+2581)."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class Spelling:
    """The bytes of every token by its id; None where it stands for no text.

    `blank_first` says that the first word of a text gets a blank of its own, which belongs to no text.
    """

    tokens: tuple[TokenBytes, ...]
    blank_first: bool

    def text(self, ids: Sequence[int]) -> str | None:
        """The text that tokens spell; None where one stands for no text, or they end within a character."""
        spelt = self._tokens(ids)
        if any(token is None for token in spelt):
            return None
        whole = b"".join(token for token in spelt if token is not None)
        try:
            return (whole.removeprefix(b" ") if self.blank_first else whole).decode("utf-8")
        except UnicodeDecodeError:
            return None

    def ends(self, ids: Sequence[int], *, text: str) -> Int32[np.ndarray, " n"] | None:
        """Where each token ends in a text, in bytes; None where they do not spell it."""
        return token_ends(self._tokens(ids), text=text.encode("utf-8", "surrogatepass"))

    def _tokens(self, ids: Sequence[int]) -> list[TokenBytes]:
        return [self.tokens[each] if each < len(self.tokens) else None for each in map(int, ids)]


def spelling_of(files: ModelFiles) -> Spelling:
    """How the tokens of a model are spelt.

    Raises:
        ModelError: its tokenizer decodes tokens in a way that this does not know.
    """
    return read_spelling(files.tokenizer, label=files.label)


def read_spelling(tokenizer: PreTrainedTokenizerBase, *, label: str) -> Spelling:
    """How the tokens of a tokenizer are spelt.

    Raises:
        ModelError: it decodes tokens in a way that this does not know.
    """
    added = tokenizer.added_tokens_decoder
    backend = getattr(tokenizer, "backend_tokenizer", None)
    steps = [] if backend is None else list(_steps(json.loads(backend.to_str()).get("decoder")))
    piece = _piece_bytes(steps)
    if piece is None:
        names = ", ".join(str(step["type"]) for step in steps) or "none"
        raise ModelError(
            f"{label}: which bytes its tokens stand for cannot be told (decoder: {names}): choose a model with a "
            "byte-level, SentencePiece or WordPiece tokenizer, or one with the teacher's vocabulary"
        )
    printed = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = {number for number, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    tokens: list[TokenBytes] = []
    for number, text in enumerate(printed):
        if number in special or text is None:
            tokens.append(None)
        elif number in added:
            tokens.append(text.replace(BLANK, " ").encode() if _writes_blanks(steps) else text.encode())
        else:
            tokens.append(piece(text))
    return Spelling(tuple(tokens), blank_first=_writes_blanks(steps) or _step(steps, "WordPiece") is not None)


def _steps(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The steps of a decoder, one behind the other."""
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for each in decoder["decoders"]:
            yield from _steps(each)
    else:
        yield decoder


def _step(steps: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    return next((step for step in steps if step["type"] == kind), None)


def _writes_blanks(steps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a decoder turns `▁` into a blank."""
    replaces = any(step["type"] == "Replace" and step["pattern"] == {"String": BLANK} for step in steps)
    return replaces or _step(steps, "Metaspace") is not None


def _piece_bytes(steps: Sequence[Mapping[str, Any]]) -> Callable[[str], TokenBytes] | None:
    """What turns the printed form of an ordinary token into its bytes; None for a decoder that is not known."""
    if _step(steps, "ByteLevel") is not None:
        return _from_alphabet
    word_piece = _step(steps, "WordPiece")
    if word_piece is not None:
        prefix = str(word_piece["prefix"])
        return lambda text: (text.removeprefix(prefix) if text.startswith(prefix) else f" {text}").encode()
    if not _writes_blanks(steps):
        return None
    falls_back = _step(steps, "ByteFallback") is not None

    def piece(text: str) -> bytes:
        byte = _BYTE.fullmatch(text) if falls_back else None
        return bytes([int(byte[1], 16)]) if byte else text.replace(BLANK, " ").encode("utf-8", "surrogatepass")

    return piece


def _from_alphabet(text: str) -> TokenBytes:
    """A byte-level token; None for one with a character that stands for no byte."""
    found = [_BYTES.get(character) for character in text]
    return None if None in found else bytes(byte for byte in found if byte is not None)


def _byte_characters() -> dict[str, int]:
    """Which byte each character of the byte-level alphabet is.

    Printable ones of Latin-1 are themselves, all others are counted up from U+0100 (Radford et al. 2019, GPT-2).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(others)}


_BYTES = _byte_characters()
