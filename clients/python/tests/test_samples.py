"""The samples, as people run them."""

from __future__ import annotations

import functools
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Optional

import pytest
from broker_for_tests import APPLICATION_KEY, PATIENCE, PROFILE_KEYS, Broker, wait_until

from com_broker import Client

SAMPLES = pathlib.Path(__file__).resolve().parent.parent / "samples"


def console(
    broker: Broker, commands: str, *arguments: str, environment: Optional[dict[str, str]] = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", SAMPLES / "console.py", "--url", broker.url(), *arguments],
        input=commands,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )


def test_help_says_it_all(broker: Broker) -> None:
    told = console(broker, "", "--help").stdout
    for word in ("--url", "--ca", "--dialect", "COM_BROKER_KEY_APPLICATION", "printf"):
        assert word in told
    commands = console(broker, "help\n").stdout
    for word in ("cnx LOGIN", "sub DEST", "unsub", "send DEST", "quit", "presence", "status"):
        assert word in commands


def test_the_console_does_everything_from_a_pipe(broker: Broker) -> None:
    run = console(
        broker,
        "# a service\nstatus\ncnx con srv\nstatus\n"
        "presence /service/none\nsub /agent/con-.* 1\nsub /topic/con\n"
        "send /topic/con hello  world\nwait\nstatus\nunsub /topic/con\nunsub\nstatus\n"
        "dis\ncnx con-a sagn\nsend /agent/con-a \x1b[31mred\nwait 1\nquit\nnever\n",
    )
    assert (run.stderr, run.returncode) == ("", 0)
    lines = run.stdout.splitlines()
    for line in (
        f"not connected; cnx connects to {broker.url()}",
        "connected as service; the address is /service/con",
        "presence subscribed",
        "subscribed to /agent/con-.*",
        "from con (/service/con): hello world",
        "  subscribed to presence of /service/none",
        "  subscribed to pattern /agent/con-.*",
        "  subscribed to /topic/con",
        "unsubscribed",
        "disconnected",
        "connected as super agent; the address is /agent/con-a",
        # What others write must not steer the terminal.
        "from con-a (/agent/con-a): \\x1b[31mred",
    ):
        assert line in lines, run.stdout
    assert lines.count("  subscribed to /topic/con") == 1


@pytest.mark.parametrize(
    ("commands", "error"),
    [
        ("fly\n", "there is no command 'fly'; help lists them"),
        ("send /agent/ana x\n", "not connected; cnx connects"),
        ("cnx\n", "usage: cnx LOGIN"),
        ("cnx ana boss\n", "there is no profile 'boss'"),
        ("cnx con-e\nsend /agent/none x\n", "NO_SUCH_DESTINATION"),
        ("cnx con-e\nsend /agent/none\n", "usage: send"),
        ("cnx con-e\nsub x 2\n", "usage: sub"),
        ("cnx con-e\nunsub /topic/a\n", "no subscription to /topic/a"),
        ("cnx con-e\nanswer x\n", "no request has come"),
        ("cnx con-e\nwait x\n", "usage: wait"),
        ("cnx con-e\npresence\n", "PROF_NO_RIGHTS"),
        ("cnx con-e\ncnx con-e\n", "there is a connection already"),
    ],
)
def test_in_a_pipe_a_command_that_fails_ends_it(broker: Broker, commands: str, error: str) -> None:
    run = console(broker, f"{commands}status\n")
    assert run.returncode == 1
    assert error in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stdout.splitlines()) < 2


def test_keys_come_from_the_environment(broker: Broker) -> None:
    run = console(broker, "cnx ana\n", environment={"COM_BROKER_KEY_AGENT": "wrong"})
    assert run.returncode == 1
    assert "INVALID_PROFILE_KEY" in run.stderr


def test_the_console_answers_requests(broker: Broker) -> None:
    with (
        Client(**broker.options(login="con-b")) as bob,
        subprocess.Popen(
            [sys.executable, SAMPLES / "console.py", "--url", broker.url()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as running,
    ):
        assert running.stdin
        assert running.stdout
        running.stdin.write("cnx con-c\nwait\nanswer yes indeed\nreq /agent/con-b are you\n")
        running.stdin.flush()
        assert "connected" in running.stdout.readline()
        assert bob.request("/agent/con-c", "is it so", timeout=PATIENCE).text == "yes indeed"
        bob.reply(bob.receive(PATIENCE), "I am")
        running.stdin.close()
        assert running.wait(PATIENCE) == 0
        assert running.stdout.read().splitlines() == [
            "from con-b (/agent/con-b): is it so",
            "answered",
            "con-b replies: I am",
        ]


@pytest.mark.parametrize("dialect", ["classic", "standard"])
def test_the_console_says_for_whom_a_copy_was(broker: Broker, dialect: str) -> None:
    login = f"con-{dialect}"
    with (
        Client(**broker.options(login=f"{login}-early")),
        subprocess.Popen(
            [sys.executable, SAMPLES / "console.py", "--url", broker.url(), "--dialect", dialect],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as running,
    ):
        assert running.stdin
        assert running.stdout
        running.stdin.write(f"cnx {login}-w srv\nsub /agent/{login}-.* 1\nwait 2\n")
        running.stdin.flush()
        assert "connected" in running.stdout.readline()
        assert "subscribed" in running.stdout.readline()
        with Client(**broker.options(login=f"{login}-late")) as late:
            for receiver in ("early", "late"):
                late.send(f"/agent/{login}-{receiver}", "hello")
            running.stdin.close()
            assert running.wait(PATIENCE) == 0
        sender = f"{login}-late (/agent/{login}-late)"
        # The classic dialect names sessions, which are known where the subscription listed them.
        whom = f"/agent/{login}-late" if dialect == "standard" else "one of those watched"
        assert running.stdout.read().splitlines() == [
            f"copy of what {sender} sent to /agent/{login}-early: hello",
            f"copy of what {sender} sent to {whom}: hello",
        ]


def test_the_console_prints_what_its_terminal_cannot_show(broker: Broker) -> None:
    with (
        Client(**broker.options(login="con-far")) as far,
        subprocess.Popen(
            [sys.executable, SAMPLES / "console.py", "--url", broker.url()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        ) as running,
    ):
        assert running.stdin
        assert running.stdout
        running.stdin.write("cnx con-ascii\nwait 2\n")
        running.stdin.flush()
        assert "connected" in running.stdout.readline()
        far.send("/agent/con-ascii", "\N{LATIN SMALL LETTER N WITH TILDE}")
        far.send("/agent/con-ascii", "and on")
        running.stdin.close()
        assert running.wait(PATIENCE) == 0
        assert running.stdout.read().splitlines() == [
            "from con-far (/agent/con-far): \\xf1",
            "from con-far (/agent/con-far): and on",
        ]


def test_a_console_that_loses_its_session_says_so(broker: Broker) -> None:
    with subprocess.Popen(
        [sys.executable, SAMPLES / "console.py", "--url", broker.url("tls"), "--ca",
         broker.authority],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdin
        assert running.stdout
        running.stdin.write("cnx con-t\n")
        running.stdin.flush()
        assert "connected" in running.stdout.readline()
        with Client(**broker.options(login="con-t")):
            assert "NEW_CONNECTION_LOGGED" in running.stdout.readline()
        running.stdin.close()
        assert running.wait(PATIENCE) == 0


@pytest.fixture
def terminal(broker: Broker) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A console at a terminal, as a person has it."""
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, SAMPLES / "console.py", "--url", broker.url(), "--dialect", "standard"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # A shell that runs the tests in the background has it ignored.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as running:
        os.close(theirs)
        yield ours, running
        running.kill()
    os.close(ours)


def test_at_a_terminal_errors_end_nothing_and_ctrl_c_does(
    terminal: tuple[int, subprocess.Popen[bytes]],
) -> None:
    ours, running = terminal
    shown = bytearray()

    def shows(text: bytes) -> bool:
        import select

        if select.select([ours], [], [], 0)[0]:
            shown.extend(os.read(ours, 4096))
        return text in shown

    def expect(text: bytes) -> None:
        wait_until(lambda: shows(text), f"{text!r} in {bytes(shown)!r}")

    expect(b"help lists the commands")
    os.write(ours, b"fly\n")
    expect(b"there is no command 'fly'")
    os.write(ours, b"cnx con-tty\n")
    expect(b"connected as agent")
    os.write(ours, b"send /agent/con-tty hello\n")
    expect(b"sent to 1")
    expect(b"from con-tty (/agent/con-tty) at /agent/con-tty: hello")
    running.send_signal(signal.SIGINT)
    assert running.wait(PATIENCE) == 130
    assert b"Traceback" not in shown


def test_the_load_test_says_how_fast(broker: Broker) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", SAMPLES / "load.py", broker.url(), "500", "20"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (run.stderr, run.returncode) == ("", 0)
    assert run.stdout.startswith("500 messages there and back in ")
    lines = (SAMPLES / "load.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 30


def test_samples_use_the_development_keys() -> None:
    text = (SAMPLES / "console.py").read_text() + (SAMPLES / "load.py").read_text()
    for key in (APPLICATION_KEY, *PROFILE_KEYS.values()):
        assert key in text
