"""Tables of what was measured: for a terminal, as Markdown, as a page."""

from __future__ import annotations

import html
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from broker import Fault

from .run import Outcome, Setting
from .stage import ATTACKS, Attack

BEGIN = "<!-- scripts/siege writes from here -->"
END = "<!-- to here -->"

TITLES = ("attack", "p99 idle", "p99", "p99.9", "longest turn", "p99.9 of turns", "> 2 ms", "loop",
          "peak", "after", "counted", "others", "attackers cut", "missed")
WIDTHS = (32, 8, 8, 8, 13, 14, 7, 6, 6, 6, 12, 18, 30, 0)
# The columns with words.
WORDS = (0, 11, 12, 13)


def milliseconds(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def mib(data: int) -> str:
    return f"{data / (1 << 20):.0f}" if data else "–"


def told(counts: Mapping[str, int]) -> str:
    """Reasons with how often each was, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda one: -one[1])
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in ordered) or "–"


def turn(outcome: Outcome) -> str:
    """The longest turn; in brackets what is left of it without what others took."""
    if outcome.peer:
        return "–"
    text = milliseconds(outcome.turn_ms)
    if outcome.turns.is_stuck:
        return f"over {text}"
    own = milliseconds(outcome.own_turn_ms)
    return text if own == text else f"{text} ({own})"


def turn_p999(outcome: Outcome) -> str:
    """What all but a thousandth of the turns took; in brackets without those that others prolonged."""
    if outcome.peer:
        return "–"
    text, own = milliseconds(outcome.turn_p999_ms), milliseconds(outcome.own_turn_p999_ms)
    return text if own == text else f"{text} ({own})"


def counted(outcome: Outcome) -> str:
    """The most that was counted, of the most that the process held above its idle state, in MiB."""
    if outcome.counted is None:
        return "–"
    return f"{outcome.counted.most >> 20} of {outcome.counted.held >> 20}"


def title(outcome: Outcome) -> str:
    """The attack, and whom it was made on if not on the broker."""
    name = outcome.attack.name if outcome.attack else "(nobody)"
    return f"{name}, {outcome.peer.name}" if outcome.peer else name


def others(outcome: Outcome) -> Counter[str]:
    """What happened to the pair and to the guest that should not have."""
    return outcome.beside_faults + outcome.guest_faults


def cut(outcome: Outcome) -> Counter[str]:
    """Why attackers were cut, by the log, and by their ERRORs where that does not have it."""
    reasons = Counter(outcome.cut)
    for word, count in outcome.told.items():
        code = word.split()[0]
        if not any(reason.startswith(code) or code.startswith(reason) for reason in reasons):
            reasons[word] += count
    return reasons


def cells(outcome: Outcome) -> tuple[str, ...]:
    """A row under TITLES."""
    return (
        title(outcome), milliseconds(outcome.idle_ms(0.99)), milliseconds(outcome.besieged_ms(0.99)),
        milliseconds(outcome.besieged_ms(0.999)), turn(outcome), turn_p999(outcome),
        "–" if outcome.peer else str(outcome.turns.above(2_000_000)),
        f"{outcome.share * 100:.0f} %", mib(outcome.peak), mib(outcome.after), counted(outcome),
        told(others(outcome)), told(cut(outcome)), ", ".join(outcome.missed) or "–")


def line(row: tuple[str, ...]) -> str:
    """A line for a terminal."""
    parts = []
    for number, (text, width) in enumerate(zip(row, WIDTHS)):
        short = text if not width or len(text) <= width else text[:width - 1] + "…"
        parts.append(short.ljust(width) if number in WORDS else short.rjust(width))
    return " ".join(parts).rstrip()


def sentences(attack: Attack) -> list[str]:
    """What an attack is, and what it did once."""
    lines = [f"{attack.who[0].upper()}{attack.who[1:]}: {attack.sentence}."]
    if attack.seen:
        lines.append(f"Seen on 826955a: {attack.seen}.")
    return lines


def details(outcome: Outcome) -> list[str]:
    """What a row has no place for."""
    lines = []
    if outcome.death:
        lines.append(f"It ended: {outcome.death}.")
    for breach, count in Counter(outcome.breaches).items():
        lines.append(f"Broken: {breach}" + (f" ({count} times)." if count > 1 else "."))
    if outcome.notes:
        lines.append("; ".join(outcome.notes) + ".")
    if outcome.counts:
        lines.append("Done: " + told(outcome.counts) + ".")
    if outcome.told:
        lines.append("Told to attackers: " + told(outcome.told) + ".")
    if others(outcome):
        lines.append("Told to pair and guest: " + told(others(outcome)) + ".")
    if outcome.preparation.max_ns > 2_000_000:
        lines.append(f"Preparation: a turn of {milliseconds(outcome.preparation.max_ns / 1e6)}"
                     f"{' ms' if outcome.preparation.max_ns < 1e9 else ''}.")
    if outcome.guest:
        lines.append(f"The guest: {len(outcome.guest)} visits, the longest "
                     f"{outcome.guest[-1] * 1000:.0f} ms.")
    if outcome.counted:
        parts = {name: data >> 20 for name, data in outcome.counted.parts.items() if data >> 20}
        if parts:
            lines.append("Counted, in MiB: " + ", ".join(
                f"{name} {mebibytes}" for name, mebibytes in parts.items()) + ".")
    totals = {name: count for name, count in outcome.totals.items() if count and name in (
        "deliveries", "slow_consumers", "limit_exceeded", "publishers_paused", "messages_dropped",
        "messages_expired", "timeouts", "takeovers", "connections_refused")}
    if totals:
        lines.append("Counted by the broker: " + told(totals) + ".")
    return lines


def mib_up(data: int) -> int:
    """Rounded up, as `com-broker check` does."""
    return -(-data >> 20)


def heading(setting: Setting) -> str:
    bounds = setting.bounds
    return (
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {platform.system()} "
        f"{platform.release()}, broker on core {setting.broker_core}, "
        f"{setting.form.name} form. Bounds: p99 of the pair "
        f"{bounds.p99_factor:g} × idle ({setting.idle_p99_ms:.2f} ms) and at least "
        f"{bounds.p99_floor_ms:g} ms, turn {bounds.turn_ms:g} ms of the loop's own processor time, "
        + (f"p99.9 of turns {bounds.turn_p999_ms:g} ms, " if bounds.turn_p999_ms else "") +
        f"memory {mib_up(setting.configured)} + {mib_up(bounds.memory_slack)} MiB, counted and held "
        f"memory apart by {bounds.counted_part:.0%} at most, nobody beside cut or refused.")


def markdown(setting: Setting, outcomes: list[Outcome]) -> str:
    """The table, and below it what it has no place for."""
    notes = [
        f"- **{title(outcome)}**: " + " ".join(details(outcome))
        for outcome in outcomes if outcome.attack]
    rows = [cells(outcome) for outcome in outcomes]
    return "\n".join([heading(setting), "", table(TITLES, rows), "", *notes, ""])


def list_of_attacks() -> str:
    """All attacks with their sentences, as Markdown."""
    rows = [(one.name, one.row or "–", f"{one.who}: {one.sentence}", one.seen or "–")
            for one in ATTACKS.values()]
    return table(("name", "row", "attack", "seen on 826955a"), rows)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(texts: Sequence[str]) -> str:
        return "| " + " | ".join(one.replace("|", "\\|") for one in texts) + " |"

    return "\n".join([row(titles), "|" + "---|" * len(titles), *map(row, rows)])


def renew(path: Path, setting: Setting, outcomes: list[Outcome]) -> None:
    """Rewrites what stands between two comments of a page."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Fault(f"{path} has not got the comments between which the tables stand")
    parts = ["## The attacks", "", list_of_attacks(), "", "## The last run", "",
             markdown(setting, outcomes)]
    path.write_text(before + begin + "\n\n" + "\n".join(parts) + "\n" + end + after)


def page(setting: Setting, outcomes: list[Outcome]) -> str:
    def row(tag: str, texts: tuple[str, ...]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(one)}</{tag}>" for one in texts) + "</tr>"

    def fold(outcome: Outcome) -> str:
        if not outcome.attack:
            return ""
        texts = ([] if outcome.peer else sentences(outcome.attack)) + details(outcome)
        lines = "".join(f"<br>{html.escape(one)}" for one in texts)
        return f"<p><b>{title(outcome)}</b>{lines}</p>"

    return "\n".join([
        "<!doctype html><meta charset=utf-8><title>siege</title>",
        "<style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{border:1px solid #ccc;padding:3px 8px;text-align:left}</style>",
        f"<p>{html.escape(heading(setting))}</p><table>", row("th", TITLES),
        *(row("td", cells(one)) for one in outcomes), "</table>", *map(fold, outcomes), ""])
