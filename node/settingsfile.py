"""Changing one key of ``settings.toml``: comments, order and everything else stay as they are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import cast

from ..protocol.errors import UsageError
from .home import write_whole
from .settings import FILE, Settings

_HEADER = re.compile(r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]\s*(?:#.*)?")


def set_key(home: Path, name: str, text: str) -> Settings:
    """Set ``table.key`` to ``text``, written as in an environment variable; returns what holds now.

    Raises:
        UsageError: no such key, a value that does not fit, or a file that must be edited by hand.

    """
    table, _, key = name.partition(".")
    Settings.load(home, {}).origin_of(name)
    fitting = Settings.load(home, {f"FARCAST_{table}_{key}".upper(): text})
    value: object = getattr(getattr(fitting, table), key)
    path = home / FILE
    old = path.read_text("utf-8") if path.exists() else ""
    new = _edited(old, table, key, f"{key} = {_toml(value)}")
    expected = tomllib.loads(old)
    cast("dict[str, object]", expected.setdefault(table, {}))[key] = value
    if _parsed(new) != expected:
        message = f"{path}: [{table}] {key} is written in a way only a person can change; edit it there"
        raise UsageError(message, reason="settings")
    write_whole(path, new.encode())
    return Settings.load(home, {})


def _edited(text: str, table: str, key: str, line: str) -> str:
    lines = text.splitlines()
    start = next((at for at, found in enumerate(lines) if _header(found) == table), None)
    if start is None:
        return "\n".join([*lines, *([""] if lines else []), f"[{table}]", line, ""])
    end = next((at for at in range(start + 1, len(lines)) if _header(lines[at])), len(lines))
    for at in range(start + 1, end):
        if re.match(rf"\s*{key}\s*=", lines[at]):
            stop = next(
                (stop for stop in range(at + 1, end + 1) if _parsed("\n".join(lines[at:stop]))), at + 1
            )
            comment = re.search(r"\s+#[^\"'\]]*$", lines[stop - 1])
            lines[at:stop] = [line + (comment[0] if comment else "")]
            break
    else:
        lines.insert(start + 1, line)
    return "\n".join([*lines, ""])


def _header(line: str) -> str | None:
    match = _HEADER.fullmatch(line)
    return match[1] if match else None


def _parsed(text: str) -> dict[str, object] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _toml(value: object) -> str:
    """Write a value as TOML; JSON's texts, numbers, lists and truth values are TOML's too."""
    if isinstance(value, dict):
        parts = cast("dict[str, int]", value).items()
        return "{ " + ", ".join(f"{json.dumps(key)} = {part}" for key, part in parts) + " }"
    return json.dumps(value, ensure_ascii=False)
