"""What each token of a teacher stands for in a text, byte by byte, and the name that it is told by.

A token need not be whole characters: one of three may be the middle byte of a `€`. Bytes can be laid one behind the
other and cut anywhere, so text, places in it and log-probabilities of tokens stay together.

The bytes are those that the teacher's vocabulary says (`Spelling`). Of a tokenizer whose vocabulary does not say them,
each token is decoded by itself; what is part of a character is U+FFFD then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol


class Spelling(Protocol):
    """The bytes of every token by its id, None where it stands for no text.

    `blank_first` says that the first word of a text gets a blank of its own, which belongs to no text.
    """

    @property
    def tokens(self) -> Sequence[bytes | None]:
        """The bytes."""
        ...

    @property
    def blank_first(self) -> bool:
        """Whether a text begins with a blank that is not its own."""
        ...


class Pieces:
    """The tokens of one teacher.

    Args:
        spell: The bytes of a token, None where it stands for no text.
        names: Those of tokens without a text, by id.
        blank_first: See `Spelling`.
    """

    def __init__(
        self, spell: Callable[[int], bytes | None], *, names: Mapping[int, str], blank_first: bool = False
    ) -> None:
        self._spell = spell
        self._names = dict(names)
        self._blank_first = blank_first
        self._known: dict[int, bytes] = {}

    def piece(self, token: int) -> bytes:
        """The bytes of a token wherever it does not begin a text; none of one that stands for no text."""
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._spell(token) or b""
        return found

    def pieces(self, token_ids: Sequence[int], *, opens_text: bool = False) -> list[bytes]:
        """The bytes of each token; `opens_text` says that the first one begins a text."""
        pieces = [self.piece(token) for token in token_ids]
        if opens_text and self._blank_first:
            first = next((at for at, piece in enumerate(pieces) if piece), None)
            if first is not None:
                pieces[first] = pieces[first].removeprefix(b" ")
        return pieces

    def name(self, token: int) -> str:
        """Its text; its bytes in hexadecimal digits where they are no whole characters, as with OpenAI; or its name."""
        piece = self.piece(token)
        if not piece:
            return self._names.get(token) or numbered(token)
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def numbered(token: int) -> str:
    """The name of a token that has no other one of its own, as vLLM writes it."""
    return f"token_id:{token}"
