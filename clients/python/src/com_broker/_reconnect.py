"""When to connect again: exponential back-off with full jitter, and the advice of the broker."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Callable, Optional


@dataclass(frozen=True)
class Reconnect:
    """How a client comes back. All times are seconds.

    Each wait is drawn between zero and a ceiling ("full jitter"), so that clients which were cut
    off together do not come back together. The ceiling begins with `initial` and doubles with every
    attempt, up to `maximum`. What the broker says decides further:

    - `retry:never`, or a WebSocket close code from 4000 to 4099: no attempt is made, and the client
      is closed;
    - `later`, or 4100 to 4199: the ceiling is at least `later`;
    - `now`, or 4200 to 4299: the first attempt is made at once.

    Attempts count from the start again after a session that lasted for at least `maximum`.
    """

    initial: float = 0.5
    maximum: float = 30.0
    later: float = 5.0
    attempts_max: Optional[int] = None
    """How many attempts in a row may fail before the client gives up and is closed; None: never."""

    def __post_init__(self) -> None:
        if not 0 < self.initial <= self.maximum or self.later <= 0:
            raise ValueError("reconnect wants 0 < initial <= maximum, and 0 < later")


class Schedule:
    """Draws the waits of one client."""

    def __init__(
        self, rules: Reconnect, draw: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._rules = rules
        self._draw = draw
        self._attempts = 0
        self._failures = 0

    def note_session(self, lasted: float) -> None:
        """A session ended that lasted for so many seconds."""
        self._failures = 0
        if lasted >= self._rules.maximum:
            self._attempts = 0

    def next_wait(self, retry: Optional[str]) -> Optional[float]:
        """How many seconds to wait before the next attempt; None if there is to be none.

        `retry` is what the broker said; None if the connection ended without a word.
        """
        rules = self._rules
        if retry == "never" or self._failures == rules.attempts_max:
            return None
        # The power is bounded before it is taken, for attempts go on for ever.
        ceiling = min(rules.maximum, rules.initial * 2.0 ** min(self._attempts, 64))
        is_first = self._attempts == 0
        self._attempts += 1
        self._failures += 1
        if retry == "now" and is_first:
            return 0.0
        if retry == "later":
            ceiling = max(ceiling, rules.later)
        return self._draw(0.0, ceiling)


def retry_of_close_code(code: Optional[int]) -> Optional[str]:
    """What a WebSocket close code says of coming back; None if it does not say."""
    if code is None or not 4000 <= code < 4300:
        return None
    return ("never", "later", "now")[(code - 4000) // 100]
