"""What a door refuses and withholds: what its experiment's blocks `privacy` and `content` would not ask or learn.

A door changes nothing that it is asked, so what an experiment would redact is refused here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from configs.screening import ContentConfig, PrivacyConfig
from orchestration.inputs.screen import Screen

Decode = Callable[[Sequence[int]], str]


class ScreenRules:
    """See `teacher_server.http.rules.Rules`."""

    def __init__(self, privacy: PrivacyConfig | None, content: ContentConfig | None, *, text: Decode) -> None:
        """Load what is looked with; `text` reads token ids.

        Raises:
            ConfigError: a part is not installed, or a list cannot be read.
        """
        if privacy is not None and privacy.prompts == "redact":
            privacy = privacy.model_copy(update={"prompts": "drop"})
        self._prompts = Screen(privacy, content, answers=False)
        self._answers = Screen(privacy, content, answers=True)
        self._text = text
        # Recognisers promise nothing to several threads at once.
        self._lock = threading.Lock()

    def why_unasked(self, token_ids: Sequence[int]) -> str | None:
        """See `Rules`."""
        return self._why(self._prompts, token_ids)

    def why_withheld(self, token_ids: Sequence[int]) -> str | None:
        """See `Rules`."""
        return self._why(self._answers, token_ids)

    def _why(self, screen: Screen, token_ids: Sequence[int]) -> str | None:
        if not screen.is_on:
            return None
        with self._lock:
            return screen.why_dropped([screen.look(self._text(token_ids))])
