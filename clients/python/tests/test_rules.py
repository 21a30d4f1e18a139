"""URLs and when to try again: tables, no broker."""

from __future__ import annotations

import asyncio
import inspect
import pathlib
from typing import Any

import pytest

from com_broker import AsyncClient, Client, ConnectFailed, NotConnected, Reconnect
from com_broker._reconnect import Schedule, retry_of_close_code
from com_broker._url import BrokerUrl
from com_broker._waiting import in_words


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("tcp://127.0.0.1:6661", ("tcp", "127.0.0.1", 6661, "/")),
        ("tcp://broker/", ("tcp", "broker", 6662, "/")),
        ("TLS://broker", ("tls", "broker", 6662, "/")),
        ("ssl://[::1]:7", ("tls", "::1", 7, "/")),
        ("ws://broker", ("ws", "broker", 80, "/")),
        ("wss://[::1]/a/b?c", ("wss", "::1", 443, "/a/b?c")),
    ],
)
def test_urls_are_taken_apart(url: str, expected: tuple[str, str, int, str]) -> None:
    assert BrokerUrl.parse(url) == BrokerUrl(*expected)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("127.0.0.1:6662", "begin with"),
        ("http://b", "begin with"),
        ("tcp://me:hush@b", "user or a password"),
        ("tcp://", "host"),
        ("tcp://:1", "host"),
        ("tcp://[::1", "host"),
        ("tcp://b:", "port"),
        ("tcp://b:0", "port"),
        ("tcp://::1", "host"),
        ("tcp://b:65536", "port"),
        ("tcp://b/x", "path"),
        ("ws://b/a b", "path"),
    ],
)
def test_a_fault_names_the_part_of_the_url(url: str, part: str) -> None:
    with pytest.raises(ValueError, match=part) as caught:
        BrokerUrl.parse(url)
    assert "hush" not in str(caught.value)


def highest(low: float, high: float) -> float:
    assert low == 0.0
    return high


@pytest.mark.behaviour("back-off")
def test_the_ceiling_doubles_up_to_its_maximum() -> None:
    schedule = Schedule(Reconnect(initial=1, maximum=5), highest)
    assert [schedule.next_wait(None) for _ in range(5)] == [1, 2, 4, 5, 5]
    for _ in range(2000):
        assert schedule.next_wait(None) == 5


@pytest.mark.behaviour("retry-obeyed")
def test_never_means_never() -> None:
    assert Schedule(Reconnect(), highest).next_wait("never") is None


@pytest.mark.behaviour("retry-obeyed")
def test_now_means_at_once_and_only_once() -> None:
    schedule = Schedule(Reconnect(initial=1, maximum=8), highest)
    assert [schedule.next_wait("now") for _ in range(3)] == [0, 2, 4]


@pytest.mark.behaviour("retry-obeyed")
def test_later_has_a_higher_ceiling() -> None:
    schedule = Schedule(Reconnect(initial=1, maximum=8, later=5), highest)
    assert [schedule.next_wait("later") for _ in range(5)] == [5, 5, 5, 8, 8]


def test_only_a_session_that_lasted_starts_the_count_again() -> None:
    schedule = Schedule(Reconnect(initial=1, maximum=8), highest)
    assert [schedule.next_wait(None) for _ in range(2)] == [1, 2]
    schedule.note_session(7.9)
    assert schedule.next_wait(None) == 4
    schedule.note_session(8)
    assert schedule.next_wait(None) == 1


def test_attempts_can_be_bounded() -> None:
    schedule = Schedule(Reconnect(attempts_max=2), highest)
    assert [schedule.next_wait(None) is None for _ in range(3)] == [False, False, True]
    schedule.note_session(0)
    assert schedule.next_wait(None) is not None


@pytest.mark.behaviour("back-off")
def test_jitter_is_drawn_from_the_whole_interval() -> None:
    schedule = Schedule(Reconnect(initial=1, maximum=1))
    waits = [schedule.next_wait(None) or 0.0 for _ in range(500)]
    assert all(0 < wait <= 1 for wait in waits)
    assert any(wait < 0.1 for wait in waits)
    assert any(wait > 0.9 for wait in waits)


def test_close_codes_say_whether_to_come_back() -> None:
    expected = {4000: "never", 4099: "never", 4100: "later", 4199: "later", 4200: "now"}
    expected[4299] = "now"
    assert {code: retry_of_close_code(code) for code in expected} == expected
    for code in (None, 1000, 1001, 1006, 3999, 4300):
        assert retry_of_close_code(code) is None


@pytest.mark.parametrize("wrong", [{"initial": 0}, {"initial": 31}, {"later": 0}])
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reconnect"):
        Reconnect(**wrong)


GOOD: dict[str, Any] = {"login": "ana", "application_key": "hush-a", "profile_key": "hush-b"}


@pytest.mark.parametrize(
    "wrong",
    [{"login": ""}, {"profile_key": ""}, {"dialect": "stomp"}, {"heart_beat": -1}, {"url": "x"}],
)
@pytest.mark.behaviour("options-checked")
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  The text is looked at below.
            kind(**{"url": "tcp://127.0.0.1", **GOOD, **wrong})
        assert str(caught.value)
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": 5}, {"login": 5}, {"login": None}, {"profile_key": b"hush"},
        {"application_key": None}, {"heart_beat": "1"}, {"heart_beat": True},
        {"connect_timeout": "1"}, {"answer_timeout": b"1"}, {"connect_timeout": None},
        {"answer_timeout": None}, {"heart_beat": None}, {"outgoing_bytes_max": 1.5},
        {"incoming_bytes_max": True}, {"frame_bytes_max": "1"}, {"reconnect": 5}, {"proxy": 5},
    ],
)  # fmt: skip
@pytest.mark.behaviour("options-checked")
def test_arguments_of_another_type_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    for kind in (Client, AsyncClient):
        with pytest.raises(TypeError, match=f"{name.replace('_', '.')}.* must be ") as caught:
            kind(**{"url": "ws://127.0.0.1", **GOOD, **wrong})
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"heart_beat": float("nan")}, {"heart_beat": float("inf")}, {"connect_timeout": -1},
        {"answer_timeout": float("nan")}, {"outgoing_bytes_max": -1}, {"frame_bytes_max": 0},
    ],
)  # fmt: skip
@pytest.mark.behaviour("options-checked")
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=name):
            kind(**{"url": "ws://127.0.0.1", **GOOD, **wrong})


def test_durations_are_words() -> None:
    for seconds, words in (
        (0.1 + 0.2, "0.3 s"), (431.2751098610252, "431.275 s"), (0, "0 s"), (10, "10 s"),
        (10.0, "10 s"), (1e7, "10000000 s"), (float("inf"), "inf s"), (0.0001, "0 s"),
    ):  # fmt: skip
        assert in_words(seconds) == words


@pytest.mark.behaviour("keys-stay-secret")
def test_a_client_shows_no_keys() -> None:
    for kind in (Client, AsyncClient):
        shown = repr(kind("tcp://127.0.0.1", **GOOD))
        assert kind.__name__ in shown
        assert "hush" not in shown


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, list[tuple[str, object]]]:
        return {
            name: [(one.name, one.default) for one in inspect.signature(call).parameters.values()]
            for name, call in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert calls(Client) == calls(AsyncClient)
    made = inspect.signature(Client), inspect.signature(AsyncClient)
    assert made[0].parameters == made[1].parameters
    for kind in (Client, AsyncClient):
        for name, member in inspect.getmembers(kind):
            if not name.startswith("_"):
                assert inspect.getdoc(member), f"{kind.__name__}.{name} says nothing of itself"


def test_nothing_works_before_connect() -> None:
    client = Client("tcp://127.0.0.1", **GOOD)
    for call in (
        lambda: client.session,
        lambda: client.send("/agent/ana", "x"),
        lambda: client.receive(),
        lambda: client.subscribe("/topic/a"),
    ):
        with pytest.raises(NotConnected):
            call()
    client.close()

    async def without_connecting() -> None:
        other = AsyncClient("tcp://127.0.0.1", **GOOD)
        with pytest.raises(NotConnected):
            await other.send("/agent/ana", "x")
        await other.close()

    asyncio.run(without_connecting())


def test_a_malformed_host_is_named() -> None:
    for scheme in ("tcp", "ws"):
        with pytest.raises(ConnectFailed, match="no name that a host can have"):
            Client(f"{scheme}://{'x' * 70}.example", **GOOD).connect()


def test_a_ca_file_without_a_certificate_is_named(tmp_path: pathlib.Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for path, what in ((empty, "no usable certificate"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ConnectFailed, match=what) as caught:
            Client("tls://127.0.0.1", ca=path, **GOOD).connect()
        assert str(path) in str(caught.value)
