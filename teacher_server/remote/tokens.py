"""Between the token ids of a tokenizer that is here and what a server far away says of tokens.

Servers name a token by its id, its bytes or a string. A string with a replacement character may be any of many
tokens, and two tokens may be spelt alike: what does not lead to exactly one id leads to none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

UNREADABLE = "\ufffd"
"""What stands in a string for bytes that are no character."""

_BY_ID = re.compile(r"token_id:(\d+)")
_BYTES = re.compile(r"bytes:((?:\\x[0-9a-fA-F]{2})+)")


class RemoteTokens:
    """The tokens of one tokenizer.

    Args:
        pieces: The bytes of every token by its id, V of them; None for one that stands for no text.
        names: How tokens that stand for no text are spelt, by id.
        encode: The ids of a text, without special tokens around it.
        blank_first: The first word of a text gets a blank of its own, which belongs to no text.
    """

    def __init__(
        self,
        pieces: Sequence[bytes | None],
        names: Mapping[int, str],
        *,
        encode: Callable[[str], Sequence[int]],
        blank_first: bool = False,
    ) -> None:
        self._pieces, self._names = tuple(pieces), dict(names)
        self._encode, self._blank_first = encode, blank_first
        spelt = {number: piece for number, piece in enumerate(pieces) if piece}
        often = Counter(spelt.values())
        self._ids = {piece: number for number, piece in spelt.items() if often[piece] == 1}
        self._special = {name: number for number, name in names.items()}

    @property
    def vocab(self) -> int:
        """V."""
        return len(self._pieces)

    def text(self, token_ids: Sequence[int]) -> str | None:
        """The text of a prompt, special tokens spelt by their names; None where it ends within a character."""
        spelt = [self._spelt(each) for each in token_ids]
        if any(piece is None for piece in spelt):
            return None
        whole = b"".join(piece for piece in spelt if piece is not None)
        try:
            return (whole.removeprefix(b" ") if self._blank_first else whole).decode()
        except UnicodeDecodeError:
            return None

    def holds_special(self, token_ids: Sequence[int]) -> bool:
        """Whether a token among them stands for no text."""
        return any(self._pieces[each] is None for each in token_ids)

    def ids(self, text: str) -> list[int] | None:
        """The ids of an answer's text; None where bytes were lost in it, or they do not spell it again to the byte."""
        if UNREADABLE in text:
            return None
        found = list(self._encode(text))
        written = b"".join(self._pieces[each] or b"" for each in found)
        whole = text.encode("utf-8", "surrogatepass")
        same = written == whole or (self._blank_first and written == b" " + whole)
        return found if same and not self.holds_special(found) else None

    def id_of(self, token: str, raw: Sequence[int] | None = None) -> int | None:
        """The one id that a server means by a string, or by the bytes beside it; None where it may mean several."""
        by_id = _BY_ID.fullmatch(token)
        if by_id:
            number = int(by_id[1])
            return number if number < self.vocab else None
        if token in self._special:
            return self._special[token]
        if raw is not None:
            return self._ids.get(bytes(raw)) if all(0 <= byte < 256 for byte in raw) else None
        escaped = _BYTES.fullmatch(token)
        if escaped:
            return self._ids.get(bytes.fromhex(escaped[1].replace("\\x", "")))
        return None if UNREADABLE in token else self._ids.get(token.encode("utf-8", "surrogatepass"))

    def _spelt(self, token_id: int) -> bytes | None:
        piece = self._pieces[token_id]
        return self._names[token_id].encode() if piece is None and token_id in self._names else piece
