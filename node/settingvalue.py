"""One value of a setting: read from TOML or from an environment variable, or explained."""

from __future__ import annotations

import re
from typing import Any

import msgspec

SIZE_UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
RATE_UNITS = {"bit/s": 1, "kbit/s": 10**3, "mbit/s": 10**6, "gbit/s": 10**9}
_RATE = re.compile(r"\s*([0-9]{1,12})(?:\.([0-9]{1,6}))?\s*([kmg]?bit/s)\s*", re.IGNORECASE)
_SIZE = re.compile(r"\s*([0-9]{1,15})(?:\.([0-9]{1,6}))?\s*([a-z]{1,3})\s*", re.IGNORECASE)
_SHOWN_CHARS = 60


def convert(name: str, kind: Any, value: object, *, text: bool) -> Any:  # noqa: ANN401 - of type kind
    """Return ``value`` as ``kind``; ``text`` where it comes from the environment and is all text.

    Raises:
        ValueError: where it does not fit; ``expectation`` says what would.

    """
    if name.endswith("_bytes") and isinstance(value, str):
        value = read_size(value)
    elif name.endswith("_bps") and isinstance(value, str):
        value = read_rate(value)
    elif text and isinstance(value, str) and isinstance(_bare(kind), msgspec.inspect.ListType):
        value = [part.strip() for part in value.split(",") if part.strip()]
    elif text and isinstance(value, str) and isinstance(_bare(kind), msgspec.inspect.DictType):
        parts = [part.partition("=") for part in value.split(",") if part.strip()]
        value = {name.strip(): int(number) for name, _, number in parts}
    elif text and isinstance(value, str):
        value = value.strip()
    return msgspec.convert(value, kind, strict=not text)


def read_size(text: str) -> int:
    """Return the bytes that ``20 GB``, ``1.5 GiB`` or a plain number mean; raises ``ValueError``."""
    if text.strip().isdecimal():
        return int(text)
    match = _SIZE.fullmatch(text)
    unit = SIZE_UNITS.get(match[3].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(text)
    digits = match[2] or ""
    return int(match[1] + digits) * unit // int(10 ** len(digits))


def read_rate(text: str) -> int:
    """Return the bits per second that ``20 Mbit/s`` or a plain number mean; raises ``ValueError``."""
    if text.strip().isdecimal():
        return int(text)
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    digits = match[2] or ""
    return int(match[1] + digits) * RATE_UNITS[match[3].lower()] // int(10 ** len(digits))


def expectation(name: str, kind: Any) -> str:  # noqa: ANN401 - a type
    """Say in words what a value of ``kind`` looks like."""
    info = msgspec.inspect.type_info(kind)
    if isinstance(info, msgspec.inspect.Metadata):
        schema: dict[str, str] = getattr(info, "extra_json_schema", None) or {}
        return schema.get("description") or expectation(name, info.type)
    if isinstance(info, msgspec.inspect.IntType):
        text = ' or a size such as "20 GB"' if name.endswith("_bytes") else ""
        text = ' or a rate such as "20 Mbit/s"' if name.endswith("_bps") else text
        return f"an integer from {info.ge} to {info.le}{text}"
    if isinstance(info, msgspec.inspect.BoolType):
        return "true or false"
    if isinstance(info, msgspec.inspect.LiteralType):
        return " or ".join(repr(value) for value in info.values)
    if isinstance(info, msgspec.inspect.ListType):
        return f"a list of at most {info.max_length} texts"
    assert isinstance(info, msgspec.inspect.StrType)
    return f"text of at most {info.max_length} characters"


def shown(value: object) -> str:
    """Return a value for an error message, short and on one line."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def _bare(kind: Any) -> msgspec.inspect.Type:  # noqa: ANN401 - a type
    info = msgspec.inspect.type_info(kind)
    return info.type if isinstance(info, msgspec.inspect.Metadata) else info
