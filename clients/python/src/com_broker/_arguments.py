"""Checks of what a program passes, made before anything is sent; errors show no values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from ._model import Body, Message


def body_bytes(body: Body) -> bytes:
    """A body as it is sent.

    Raises:
        TypeError: it is neither text nor bytes; `bytes(5)` would be five NULs.
    """
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise wrong_type("the body", "str, bytes, bytearray or memoryview", body)


def check_text(name: str, value: object) -> None:
    """Raises a TypeError unless a value is a `str`."""
    if not isinstance(value, str):
        raise wrong_type(name, "str", value)


def check_destination(destination: str) -> None:
    """Raises unless a destination is a `str` that is not empty."""
    check_text("the destination", destination)
    if not destination:
        raise ValueError("the destination is empty")


def check_content_type(content_type: Optional[str]) -> None:
    """Raises a TypeError unless the content type is a `str` or absent."""
    if content_type is not None:
        check_text("content_type", content_type)


def check_headers(headers: Optional[Mapping[str, str]]) -> Mapping[str, str]:
    """Headers to send, none if absent.

    Raises:
        TypeError: they are no mapping of `str` to `str`.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise wrong_type("headers", "a mapping of str to str", headers)
    for key, value in headers.items():
        check_text("the name of a header", key)
        check_text(f"the value of the header {key!r}", value)
    return headers


def check_message(message: Message) -> None:
    """Raises a TypeError unless a message is a `Message`."""
    if not isinstance(message, Message):
        raise wrong_type("the message", "a Message", message)


def check_flag(name: str, value: object) -> None:
    """Raises a TypeError unless a value is a `bool`."""
    if not isinstance(value, bool):
        raise wrong_type(name, "bool", value)


def check_count(name: str, value: object, least: int) -> None:
    """Raises a TypeError unless a value is an `int`, and a ValueError below `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, "int", value)
    if value < least:
        raise ValueError(f"{name} must be at least {least}")


def check_timeout(value: Optional[float]) -> None:
    """Raises as `check_seconds` does, unless there is no timeout."""
    if value is not None:
        check_seconds("timeout", value)


def check_seconds(name: str, value: float, endless: bool = True) -> None:
    """Raises a TypeError unless a duration is a number; a ValueError if it is negative or NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(name, "a number of seconds", value)
    # NaN is not at least zero either.
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, and not NaN")
    if not endless and value > 1_000_000:
        raise ValueError(f"{name} must be at most 1000000 s")


def wrong_type(name: str, wanted: str, value: object) -> TypeError:
    """The exception for an argument of the wrong type; it names the type, not the value."""
    return TypeError(f"{name} must be {wanted}, and not {type(value).__name__}")
