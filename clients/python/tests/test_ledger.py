"""Which subscriptions are wanted, and which the broker may have, without a broker."""

from __future__ import annotations

import random

import pytest

from com_broker import Session, Subscription
from com_broker._ledger import Ledger, lasting

SESSION = Session("5f", "eve", "service", 3, "/service/eve")


def subscription(name: str, destination: str = "/topic/a") -> Subscription:
    return Subscription(id=name, destination=destination)


@pytest.mark.behaviour("unsubscribed-stays-so")
def test_what_is_removed_is_an_orphan_until_the_broker_has_ended_it() -> None:
    ledger = Ledger(has_ids=True)
    ledger.add(subscription("1"))
    assert ledger.remove("1") is not None
    assert ledger.remove("1") is None
    assert [one.id for one in ledger.orphans] == ["1"]
    ledger.forget("1")
    assert ledger.orphans == []


def test_a_removal_that_the_broker_never_heard_of_is_undone() -> None:
    ledger = Ledger(has_ids=True)
    ledger.add(subscription("1"))
    held = ledger.remove("1")
    assert held is not None
    ledger.take_back(held)
    assert ([one.subscription.id for one in ledger.held], ledger.orphans) == (["1"], [])


def test_without_ids_the_last_of_several_to_one_destination_is_the_orphan() -> None:
    ledger = Ledger(has_ids=False)
    ledger.add(subscription("1"))
    ledger.add(subscription("2"))
    ledger.remove("1")
    assert ledger.orphans == []
    ledger.remove("2")
    assert [one.id for one in ledger.orphans] == ["2"]


@pytest.mark.parametrize("has_ids", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_both_wanted_and_an_orphan(seed: int, has_ids: bool) -> None:
    drawn = random.Random(seed)
    ledger = Ledger(has_ids=has_ids)
    removed = []
    for number in range(200):
        act = drawn.randrange(4)
        names = [one.subscription.id for one in ledger.held]
        if act < 2 or not names:
            ledger.add(subscription(str(number), f"/topic/{drawn.randrange(3)}"))
        elif act == 2:
            removed.append(ledger.remove(drawn.choice(names)))
        elif removed and (held := removed.pop()) is not None:
            ledger.take_back(held)
        wanted = {one.wire.id for one in ledger.held}
        assert not wanted & {one.id for one in ledger.orphans}


@pytest.mark.behaviour("subscriptions-survive")
@pytest.mark.parametrize(
    ("destination", "restored", "is_regex"),
    [
        ("/agent/ana", "/agent/ana", True),
        ("/agent/a.b+c", r"/agent/a\.b\+c", True),
        ("/topic/a.b", "/topic/a.b", False),
        ("/service/eve", "/service/eve", False),
    ],
)
def test_a_client_that_was_watched_by_address_may_come_back_later(
    destination: str, restored: str, is_regex: bool
) -> None:
    made = lasting(subscription("1", destination), SESSION)
    assert (made.destination, made.regex) == (restored, is_regex)
