"""The schema: what a dish's own software calls its fields, as it tells by server reflection.

Pure. Numbers change hands with every firmware, names seldom do; so names are what this box knows, and a
name that a dish does not have is absent. The descriptors are those of ``google/protobuf/descriptor.proto``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...protocol.errors import RemoteError
from .fields import Fields

ENTRIES_LIMIT = 20_000
"""Fields and enum values of all files together."""
DEPTH_LIMIT = 8
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}")

# numbers of descriptor.proto
_FILE_PACKAGE, _FILE_NEEDS, _FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES = 2, 3, 4, 5, 6
_NAMED, _FIELDS, _NESTED, _ENUMS, _METHODS, _VALUES = 1, 2, 3, 4, 2, 2
_FIELD_NUMBER, _FIELD_TYPE, _VALUE_NUMBER, _METHOD_IN, _METHOD_OUT = 3, 6, 2, 2, 3


class Schema:
    """Messages, enums and methods by their full names; raises ``RemoteError`` ``malformed``."""

    def __init__(self, files: Iterable[bytes]) -> None:
        self.messages: dict[str, dict[str, tuple[int, str]]] = {}
        self.enums: dict[str, dict[int, str]] = {}
        self.methods: dict[str, tuple[str, str]] = {}
        self._entries = 0
        for data in files:
            file = Fields(data)
            package = file.text(_FILE_PACKAGE)
            prefix = f".{package}" if package else ""
            for message in file.every(_FILE_MESSAGES):
                self._add_message(Fields(message), prefix, 0)
            for enum in file.every(_FILE_ENUMS):
                self._add_enum(Fields(enum), prefix)
            for service in map(Fields, file.every(_FILE_SERVICES)):
                for method in map(Fields, service.every(_METHODS)):
                    self._count()
                    name = f"{prefix[1:]}.{service.text(_NAMED)}/{method.text(_NAMED)}"
                    self.methods[name] = (method.text(_METHOD_IN), method.text(_METHOD_OUT))

    def _add_message(self, message: Fields, prefix: str, depth: int) -> None:
        if depth > DEPTH_LIMIT:
            raise RemoteError("the dish's schema is nested without an end", reason="malformed")
        name = f"{prefix}.{message.text(_NAMED)}"
        fields = self.messages.setdefault(name, {})
        for one in map(Fields, message.every(_FIELDS)):
            self._count()
            number = one.integer(_FIELD_NUMBER) or 0
            fields[one.text(_NAMED)] = (number, one.text(_FIELD_TYPE))
        for nested in message.every(_NESTED):
            self._add_message(Fields(nested), name, depth + 1)
        for enum in message.every(_ENUMS):
            self._add_enum(Fields(enum), name)

    def _add_enum(self, enum: Fields, prefix: str) -> None:
        values = self.enums.setdefault(f"{prefix}.{enum.text(_NAMED)}", {})
        for one in map(Fields, enum.every(_VALUES)):
            self._count()
            name = one.text(_NAMED)
            if _NAME.fullmatch(name):
                values[one.integer(_VALUE_NUMBER) or 0] = name

    def _count(self) -> None:
        self._entries += 1
        if self._entries > ENTRIES_LIMIT:
            raise RemoteError("the dish's schema is larger than any dish's", reason="oversized")


def needs(file: bytes) -> list[str]:
    """Return the names of the files that a file's descriptor is built on."""
    try:
        return [name.decode() for name in Fields(file).every(_FILE_NEEDS)]
    except UnicodeDecodeError:
        raise RemoteError("the dish's schema names a file that has no name", reason="malformed") from None


def name_of(file: bytes) -> str:
    """Return the name of a file's descriptor."""
    return Fields(file).text(_NAMED)


class Reading:
    """A message read by the names of its schema; what either lacks is absent."""

    def __init__(self, schema: Schema, kind: str, fields: Fields) -> None:
        self._schema, self._fields = schema, fields
        self._known = schema.messages.get(kind, {})

    def real(self, name: str) -> float | None:
        """Return a number with a fraction."""
        return self._fields.real(self._number(name))

    def flag(self, name: str) -> bool:
        """Return a switch; off where it is absent."""
        return bool(self._fields.integer(self._number(name)))

    def choice(self, name: str) -> str | None:
        """Return the name of an enum's value; the value itself, as digits, where it has none."""
        number, kind = self._known.get(name, (0, ""))
        value = self._fields.integer(number)
        return None if value is None else self._schema.enums.get(kind, {}).get(value, str(value))

    def first_choice(self, name: str) -> str:
        """Return the same, where a value that the wire leaves out is the first one, number 0."""
        return self.choice(name) or self._schema.enums.get(self._known.get(name, (0, ""))[1], {}).get(0, "0")

    def inner(self, name: str) -> Reading | None:
        """Return a message within this one."""
        number, kind = self._known.get(name, (0, ""))
        found = self._fields.inner(number) if number else None
        return None if found is None else Reading(self._schema, kind, found)

    def raised(self) -> list[str]:
        """Return the names of all switches that are on, in order."""
        return sorted(
            name for name, (number, _) in self._known.items()
            if _NAME.fullmatch(name) and self._fields.integer(number) == 1
        )  # fmt: skip

    def _number(self, name: str) -> int:
        return self._known.get(name, (0, ""))[0]
