"""Measures messages to itself, with the development keys: load.py [URL] [MESSAGES] [AT_ONCE]."""

from __future__ import annotations

import asyncio
import sys
import time

from com_broker import AsyncClient

APPLICATION_KEY, PROFILE_KEY = "my_app_secret_key", "my_agent_secret_key"


async def main(
    url: str = "tcp://127.0.0.1:6662", messages: str = "20000", at_once: str = "100"
) -> None:
    """Sends MESSAGES to itself, AT_ONCE of them concurrently, and prints the rate."""
    async with AsyncClient(
        url, login="load", application_key=APPLICATION_KEY, profile_key=PROFILE_KEY
    ) as client:

        async def send(count: int) -> None:
            for _ in range(count):
                await client.send(client.session.destination, b"x" * 64)
                await client.receive()

        each = int(messages) // int(at_once)
        began = time.perf_counter()
        await asyncio.gather(*(send(each) for _ in range(int(at_once))))
        seconds = time.perf_counter() - began
    count = each * int(at_once)
    print(f"{count} messages there and back in {seconds:.2f} s: {count / seconds:.0f} a second")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
