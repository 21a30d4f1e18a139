"""Every snippet of README.md, as it stands there; what it prints must be what the page says."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest
from broker_for_tests import Broker

PACKAGE = pathlib.Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Snippet:
    """A block of the page, and the output that follows it."""

    language: str
    text: str
    output: str
    line: int

    def __str__(self) -> str:
        return f"line-{self.line}"


def read_snippets() -> list[Snippet]:
    """All blocks, each with the `text` block right after it."""
    page = (PACKAGE / "README.md").read_text()
    blocks = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)
    return [
        Snippet(found[1], found[2], found[3] or "", page[: found.start()].count("\n") + 2)
        for found in blocks.finditer(page)
    ]


SNIPPETS = read_snippets()
IN_PACKAGING = ("pip install ./clients/python\n", 'pip install "./clients/python[websocket]"\n')
"""What tests/test_packaging.py runs, in an empty environment."""
OURSELVES = "clients/python/test\n"
PROGRAMS = [one for one in SNIPPETS if one.text not in (*IN_PACKAGING, OURSELVES)]


@pytest.mark.parametrize("snippet", PROGRAMS, ids=str)
def test_it_does_what_the_page_says(
    snippet: Snippet, broker: Broker, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "samples").symlink_to(PACKAGE / "samples")
    (tmp_path / "certs").symlink_to(broker.directory / "certs")
    text = re.sub(r"\b6662\b", str(broker.port), snippet.text)
    commands = {"python": [sys.executable, "-W", "error", "-c", text], "sh": ["sh", "-ec", text]}
    run = subprocess.run(
        commands[snippet.language],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "COM_BROKER_URL": f"tcp://127.0.0.1:{broker.port}",
            "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(PACKAGE / "src"),
        },
    )
    assert (run.stderr, run.returncode) == ("", 0)
    printed = run.stdout.replace(str(broker.port), "6662")
    if snippet.output:
        # Answers and messages are printed by different threads.
        assert sorted(printed.splitlines()) == sorted(snippet.output.splitlines())
    else:
        assert printed


def test_every_block_is_accounted_for() -> None:
    page = (PACKAGE / "README.md").read_text()
    assert page.count("```") == 2 * len(SNIPPETS) + 2 * sum(bool(one.output) for one in SNIPPETS)
    assert {one.language for one in SNIPPETS} == {"python", "sh"}
    assert {*IN_PACKAGING, OURSELVES} <= {one.text for one in SNIPPETS}
    assert all(one.output for one in SNIPPETS if one.language == "python")
    assert os.access(PACKAGE / "test", os.X_OK)


def test_it_names_every_exception_and_option() -> None:
    import com_broker
    from com_broker import errors

    page = (PACKAGE / "README.md").read_text()
    for name in errors.__all__:
        assert f"`{name}`" in page, f"README.md says nothing of {name}"
    assert f"## {com_broker.__version__}\n" in (PACKAGE / "CHANGELOG.md").read_text()
