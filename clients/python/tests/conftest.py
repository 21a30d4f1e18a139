"""Fixtures: a broker for all tests, brokers of one's own, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from broker_for_tests import PATIENCE, Broker, build, wait_until

LIMITS = """
[limits]
heart_beat_ms_min = 200
"""
"""Short heart-beats, so that silence is noticed soon."""


def pytest_configure(config: pytest.Config) -> None:
    """Before 3.11 asyncio itself forgets half of a TLS transport whose handshake failed."""
    if sys.version_info < (3, 11):
        config.addinivalue_line(
            "filterwarnings", "ignore:unclosed transport <asyncio.sslproto:ResourceWarning"
        )


@pytest.fixture(scope="session")
def program() -> pathlib.Path:
    """The broker under test: what COM_BROKER_PROGRAM says, or what is built here."""
    given = os.environ.get("COM_BROKER_PROGRAM")
    return pathlib.Path(given).resolve() if given else build()


@pytest.fixture(scope="session", autouse=True)
def _no_proxies() -> None:
    """Nothing here leaves the machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)


@pytest.fixture(scope="session")
def broker(program: pathlib.Path) -> Iterator[Broker]:
    """A broker that all tests share; none may disturb it."""
    with Broker(program, LIMITS) as started:
        yield started


@pytest.fixture
def start_broker(program: pathlib.Path) -> Iterator[Callable[..., Broker]]:
    """Starts brokers of one's own, with TOML of one's own."""
    with contextlib.ExitStack() as stack:

        def start(config: str = LIMITS) -> Broker:
            return stack.enter_context(Broker(program, config))

        yield start


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """Every thread that a test started must have ended with it."""
    before = set(threading.enumerate())
    yield

    def left() -> list[str]:
        return [
            one.name
            for one in threading.enumerate()
            # The brokers' logs are read on threads of their own, as long as the brokers run.
            if one not in before and "_read_log" not in one.name
        ]

    wait_until(lambda: not left(), f"threads are left: {left()}", PATIENCE)


@pytest.fixture
def run() -> Callable[[Any], Any]:
    """Runs a coroutine to its end, and sees that it leaves no task behind."""

    def run_limited(coroutine: Any) -> Any:
        async def limited() -> Any:
            result = await asyncio.wait_for(coroutine, 3 * PATIENCE)
            await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks are left: {left}"
            return result

        return asyncio.run(limited())

    return run_limited
