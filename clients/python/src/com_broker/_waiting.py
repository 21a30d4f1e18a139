"""Waiting for tasks, by asyncio, so that no cancellation is lost.

`asyncio.wait_for` of Python 3.9 to 3.11 drops a cancellation that comes in the turn of the loop in
which the result does, and `suppress(CancelledError)` around `await task` cannot tell the task's
cancellation from that of whoever awaits it. `asyncio.wait` does neither.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Optional


async def end(task: asyncio.Task[Any]) -> None:
    """Cancels a task and waits until it has ended; what it raises is dropped.

    If we are cancelled meanwhile, the task is told once more, and we raise when it has ended.
    """
    cancelled: Optional[asyncio.CancelledError] = None
    task.cancel()
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
            task.cancel()
    if not task.cancelled():
        # Otherwise asyncio complains that nobody looked.
        task.exception()
    if cancelled is not None:
        raise cancelled


def finite(seconds: float) -> Optional[float]:
    """A timeout as asyncio takes it: None for an endless one."""
    return None if math.isinf(seconds) else max(seconds, 0.0)


def in_words(seconds: float) -> str:
    """A duration for people: to the millisecond, and no further."""
    return f"{f'{seconds:.3f}'.rstrip('0').rstrip('.')} s"
