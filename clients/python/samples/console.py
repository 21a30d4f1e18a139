r"""An interactive console: log in, watch, send, answer; by hand, or with commands from a pipe.

    python samples/console.py --url tls://localhost:6662 --ca certs/ca.pem
    printf 'cnx ana agn\nsend /agent/ana hello\nwait\n' | python samples/console.py

Keys come from the environment, under the names that the broker knows: COM_BROKER_KEY_APPLICATION,
COM_BROKER_KEY_AGENT, COM_BROKER_KEY_SUPER_AGENT, COM_BROKER_KEY_SERVICE, COM_BROKER_KEY_ADMIN.
Without them the development keys are used, which work on loopback addresses only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Optional

from com_broker import BrokerError, Client, Message, PresenceEvent, Subscription, __version__

PROFILES = {
    "agn": ("agent", "COM_BROKER_KEY_AGENT", "my_agent_secret_key"),
    "sagn": ("super agent", "COM_BROKER_KEY_SUPER_AGENT", "my_super_agent_secret_key"),
    "srv": ("service", "COM_BROKER_KEY_SERVICE", "my_service_secret_key"),
    "adm": ("admin", "COM_BROKER_KEY_ADMIN", "my_admin_secret_key"),
}

WAIT_SECONDS = 10.0


class Wrong(Exception):
    """A command that cannot be carried out, and why."""


class Console:
    """One client at a time, and what may be done with it."""

    def __init__(self, url: str, ca: Optional[str], dialect: str) -> None:
        self._url = url
        self._ca = ca
        self._dialect = dialect
        self._client: Optional[Client] = None
        self._printers: list[threading.Thread] = []
        self._last_request: Optional[Message] = None
        self._unawaited = threading.Semaphore(0)
        self._commands: dict[str, Callable[[list[str]], None]] = {
            "cnx": self.connect,
            "dis": self.disconnect,
            "send": self.send,
            "req": self.request,
            "answer": self.answer,
            "sub": self.subscribe,
            "unsub": self.unsubscribe,
            "presence": self.presence,
            "status": self.status,
            "wait": self.wait,
            "help": self.help,
        }

    def run(self, line: str) -> None:
        """Carries out one line.

        Raises:
            Wrong: it makes no sense.
            BrokerError: the broker, or the way there, is against it.
        """
        words = line.split()
        if not words or words[0].startswith("#"):
            return
        command = self._commands.get(words[0])
        if command is None:
            raise Wrong(f"there is no command {words[0]!r}; help lists them")
        command(words[1:])

    def close(self) -> None:
        """Logs out, if anybody is logged in."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        for printer in self._printers:
            printer.join()
        self._printers.clear()
        self._last_request = None

    # -- commands ------------------------------------------------------------------------------

    def connect(self, words: list[str]) -> None:
        """cnx LOGIN [agn|sagn|srv|adm]: logs in, as agent unless told otherwise."""
        if not 1 <= len(words) <= 2:
            raise Wrong(f"usage: {self.connect.__doc__}")
        if self._client is not None:
            raise Wrong("there is a connection already; dis ends it")
        profile = words[1] if len(words) == 2 else "agn"
        if profile not in PROFILES:
            raise Wrong(f"there is no profile {profile!r}: {', '.join(PROFILES)}")
        _, variable, development_key = PROFILES[profile]
        client = Client(
            self._url,
            login=words[0],
            application_key=os.environ.get("COM_BROKER_KEY_APPLICATION", "my_app_secret_key"),
            profile_key=os.environ.get(variable, development_key),
            dialect=self._dialect,
            ca=self._ca,
        )
        session = client.connect()
        self._client = client
        show(f"connected as {session.profile}; the address is {session.destination}")
        for work in (self._print_messages, self._print_presence):
            printer = threading.Thread(target=work, args=(client,), daemon=True)
            printer.start()
            self._printers.append(printer)

    def disconnect(self, words: list[str]) -> None:
        """dis: logs out."""
        if words:
            raise Wrong(f"usage: {self.disconnect.__doc__}")
        self._connected()
        self.close()
        show("disconnected")

    def send(self, words: list[str]) -> None:
        """send DESTINATION MESSAGE…: sends, and says when the broker has passed it on."""
        destination, text = self._destination_and_text(words, self.send)
        receipt = self._connected().send(destination, text)
        reached = "" if receipt.delivered is None else f" to {receipt.delivered}"
        show(f"sent{reached}")

    def request(self, words: list[str]) -> None:
        """req DESTINATION MESSAGE…: sends a request, and waits for the reply."""
        destination, text = self._destination_and_text(words, self.request)
        reply = self._connected().request(destination, text, timeout=WAIT_SECONDS)
        show(f"{reply.origin} replies: {body_of(reply)}")

    def answer(self, words: list[str]) -> None:
        """answer MESSAGE…: replies to the last request that came."""
        if not words:
            raise Wrong(f"usage: {self.answer.__doc__}")
        client = self._connected()
        if self._last_request is None:
            raise Wrong("no request has come")
        client.reply(self._last_request, " ".join(words))
        show("answered")

    def subscribe(self, words: list[str]) -> None:
        """sub DESTINATION [1|0]: watches a client (1: a regular expression), or takes a topic."""
        if not 1 <= len(words) <= 2 or words[1:] not in ([], ["0"], ["1"]):
            raise Wrong(f"usage: {self.subscribe.__doc__}")
        made = self._connected().subscribe(words[0], regex=words[1:] == ["1"])
        there = ", ".join(one.destination for one in made.clients)
        show(f"subscribed to {made.destination}" + (f": {there}" if there else ""))

    def unsubscribe(self, words: list[str]) -> None:
        """unsub [DESTINATION]: ends a subscription, or all of them."""
        client = self._connected()
        ended: Iterable[Subscription] = [
            one for one in client.subscriptions if not words or one.destination == words[0]
        ]
        if words and not ended:
            raise Wrong(f"there is no subscription to {words[0]}; status lists them")
        for one in ended:
            client.unsubscribe(one)
        show("unsubscribed")

    def presence(self, words: list[str]) -> None:
        """presence [PATTERN]: tells who is there, comes and goes; for services."""
        if len(words) > 1:
            raise Wrong(f"usage: {self.presence.__doc__}")
        self._connected().subscribe_presence(*words, snapshot=True)
        show("presence subscribed")

    def status(self, words: list[str]) -> None:
        """status: tells who we are and what is subscribed."""
        if words:
            raise Wrong(f"usage: {self.status.__doc__}")
        if self._client is None:
            show(f"not connected; cnx connects to {self._url}")
            return
        session = self._client.session
        show(f"{self._client.state} to {self._url} as {session.profile}: {session.destination}")
        for one in self._client.subscriptions:
            kind = "presence of " if one.is_presence else "pattern " if one.regex else ""
            show(f"  subscribed to {kind}{one.destination}")

    def wait(self, words: list[str]) -> None:
        """wait [COUNT]: waits until so many messages or events came since the last wait."""
        if len(words) > 1 or not all(word.isdecimal() for word in words):
            raise Wrong(f"usage: {self.wait.__doc__}")
        for _ in range(int(words[0]) if words else 1):
            if not self._unawaited.acquire(timeout=WAIT_SECONDS):
                raise Wrong(f"nothing came within {WAIT_SECONDS:g} s")

    def help(self, words: list[str]) -> None:
        """help: this."""
        for command in self._commands.values():
            show(f"  {command.__doc__}")
        show("  quit: logs out and ends; so does the end of input.")

    # -- what comes ----------------------------------------------------------------------------

    def _print_messages(self, client: Client) -> None:
        try:
            for message in client.messages():
                if "reply-to" in message.headers and not message.is_copy:
                    self._last_request = message
                show(f"{head_of(message)}: {body_of(message)}")
                self._unawaited.release()
        except BrokerError as error:
            show(f"the connection has ended for good: {error}; dis, then cnx")

    def _print_presence(self, client: Client) -> None:
        # The other printer tells of the end.
        with contextlib.suppress(BrokerError):
            for event in client.presence_events():
                show(presence_line(event))
                self._unawaited.release()

    def _connected(self) -> Client:
        if self._client is None:
            raise Wrong("not connected; cnx connects")
        return self._client

    @staticmethod
    def _destination_and_text(words: list[str], command: Callable[..., None]) -> tuple[str, str]:
        if len(words) < 2:
            raise Wrong(f"usage: {command.__doc__}")
        return words[0], " ".join(words[1:])


def head_of(message: Message) -> str:
    """Who sent a message, and to whom, as far as the broker tells."""
    sender = f"{message.origin} ({message.origin_destination})"
    if message.is_copy:
        return f"copy of what {sender} sent to {message.destination or 'one of those watched'}"
    return f"from {sender}" + (f" at {message.destination}" if message.destination else "")


def body_of(message: Message) -> str:
    """A body as a line; a body that is not UTF-8 as its length."""
    try:
        return message.text
    except UnicodeDecodeError:
        return f"<{len(message.body)} bytes of {message.content_type}>"


def presence_line(event: PresenceEvent) -> str:
    """A presence event as a line."""
    return f"{event.login} ({event.destination}, {event.profile}) {event.event}: {event.reason}"


def show(text: str) -> None:
    """Prints a line; what others wrote must not steer the terminal."""
    line = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    # In one piece, for others print as well.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("COM_BROKER_URL", "tcp://127.0.0.1:6662"),
        help="tcp://, tls://, ws:// or wss://, host and port; without it COM_BROKER_URL counts "
        "(default: %(default)s)",
    )
    parser.add_argument("--ca", help="a PEM file with the authority to trust, for tls and wss")
    parser.add_argument(
        "--dialect",
        choices=("classic", "standard"),
        default="classic",
        help="standard tells how many got a message; every refusal ends its connection",
    )
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args()


def main() -> int:
    """Carries out what is typed, or comes from a pipe; there, a command that fails ends it."""
    arguments = parse_arguments()
    interactive = sys.stdin.isatty()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What others write need not be in this terminal's character set.
            stream.reconfigure(errors="backslashreplace")
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  It gives input() a history.
        show("help lists the commands")
    console = Console(arguments.url, arguments.ca, arguments.dialect)
    try:
        while True:
            try:
                line = input("$ " if interactive else "")
            except EOFError:
                return 0
            if line.strip() == "quit":
                return 0
            try:
                console.run(line)
            except (Wrong, BrokerError, ValueError) as error:
                print(error, file=sys.stderr, flush=True)
                if not interactive:
                    return 1
    except KeyboardInterrupt:
        return 130
    finally:
        console.close()


if __name__ == "__main__":
    sys.exit(main())
