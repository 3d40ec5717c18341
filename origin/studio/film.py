"""``film.toml``: what a publisher says about a film, read strictly."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, cast

from ...protocol.errors import UsageError
from ...protocol.manifest import BASIS_POINTS, Payee, Window
from .language import language_tag

SIZE_LIMIT_BYTES = 1 << 20
NAME_LIMIT_CHARS, DESCRIPTION_LIMIT_CHARS, TITLE_LIMIT_CHARS = 400, 4_000, 63
LABEL_LIMIT_CHARS = 100
PAYEES_LIMIT = 64
TRACKS_LIMIT = 24
"""Extra sounds, and subtitles, that one film may name."""

_TITLE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PAYEE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TERRITORY = re.compile(r"[A-Z]{2}")
_WHOLE_TIME = Window(from_ms=0, until_ms=0)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Companion:
    """A file that belongs to a film: a sound or subtitles in some language; ``label`` is for menus."""

    path: Path
    language: str
    label: str


@dataclass(frozen=True, slots=True)
class Film:
    """A title's own data; everything else in its manifest is measured.

    ``title`` is the id in the catalog, ``name`` what people read; ``language`` a BCP 47 tag or
    empty; ``territories`` ISO 3166 codes, empty for everywhere.
    """

    title: str
    name: str
    payees: tuple[Payee, ...]
    description: str = ""
    language: str = ""
    access: Literal["open", "ticket"] = "open"
    window: Window = _WHOLE_TIME
    territories: tuple[str, ...] = ()
    sounds: tuple[Companion, ...] = ()
    subtitles: tuple[Companion, ...] = ()


def load_film(media: Path, *, title: str | None = None, payee: str | None = None) -> Film:
    """Read ``<media stem>.toml`` or ``film.toml`` beside ``media``; without either, use the file's name.

    ``title`` is the command line's wish and names the title, and the film too if the file does
    not; ``payee`` gets everything where the file names nobody.

    Raises:
        UsageError: an unknown key or a bad value, with the file, the key and the reason.

    """
    path = next(
        (path for path in (media.with_suffix(".toml"), media.with_name("film.toml")) if path.is_file()), None
    )
    said = _Table(path, "", _read(path) if path else {})
    try:
        wish = None if title is None else _name(title)
    except ValueError as error:
        raise UsageError(f"the title {error}", reason="bad_value") from error
    stem = media.stem.encode(errors="replace").decode()  # a file name need not be text
    name = said.take("name", _name) or wish or stem
    ident = slug(wish) if wish else said.take("title", _title) or slug(name)
    said.skip("title")
    film = Film(
        title=ident,
        name=name,
        payees=said.take("payees", lambda value: _payees(path, value))
        or _sole_payee(payee, path or media.with_name("film.toml")),
        description=said.take("description", _description) or "",
        language=said.take("language", _language) or "",
        access=said.take("access", _access) or "open",
        window=said.take("window", lambda value: _window(path, value)) or _WHOLE_TIME,
        territories=said.take("territories", _territories) or (),
        sounds=said.take("audio", lambda value: _companions(path, "audio", value)) or (),
        subtitles=said.take("subtitles", lambda value: _companions(path, "subtitles", value)) or (),
    )
    said.finish()
    return film


def slug(name: str) -> str:
    """Turn a name into a title id; one without a single Latin letter or digit gets a stable number."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:TITLE_LIMIT_CHARS].strip("-")
    return words or f"title-{sha256(name.encode()).hexdigest()[:8]}"


class _Table:
    """One TOML table whose keys are taken one by one; what nobody took is unknown."""

    def __init__(self, path: Path | None, prefix: str, values: Mapping[str, object]) -> None:
        self._path, self._prefix, self._values = path, prefix, values
        self._known: list[str] = []

    def skip(self, key: str) -> None:
        self._known.append(key)

    def take(self, key: str, check: Callable[[Any], T]) -> T | None:
        """Return the checked value of ``key``, None where it is absent."""
        self._known.append(key)
        if key not in self._values:
            return None
        try:
            return check(self._values[key])
        except ValueError as error:
            raise UsageError(f"{self._path}: {self._prefix}{key} {error}", reason="bad_value") from error

    def need(self, key: str, check: Callable[[Any], T]) -> T:
        value = self.take(key, check)
        if value is None:
            raise UsageError(f"{self._path}: {self._prefix}{key} is missing", reason="missing_key")
        return value

    def finish(self) -> None:
        for key in self._values:
            if key not in self._known:
                near = get_close_matches(key, self._known, n=1, cutoff=0.5)
                mend = (
                    f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(self._known))}"
                )
                raise UsageError(
                    f"{self._path}: unknown key {self._prefix}{key}; {mend}", reason="unknown_key"
                )


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", reason="unreadable") from error
    if len(data) > SIZE_LIMIT_BYTES:
        raise UsageError(f"{path} is over {SIZE_LIMIT_BYTES} bytes, too long for a film.toml")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", reason="not_toml") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}", reason="not_toml") from error


def _bad(reason: str) -> NoReturn:
    raise ValueError(reason)


def _text(value: object, limit_chars: int, *, lines: bool = False) -> str:
    if not isinstance(value, str) or not value.strip():
        _bad("must be text, and not empty")
    if len(value) > limit_chars:
        _bad(f"has {len(value)} characters, at most {limit_chars} are allowed")
    if any(
        unicodedata.category(letter) in {"Cc", "Cs"} and not (lines and letter in "\n\t") for letter in value
    ):
        _bad("must not contain control characters")
    return value


def _name(value: object) -> str:
    return _text(value, NAME_LIMIT_CHARS)


def _description(value: object) -> str:
    return _text(value, DESCRIPTION_LIMIT_CHARS, lines=True)


def _matching(value: object, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        _bad(f"is {value!r}, but must be {what}")
    return value


def _title(value: object) -> str:
    return _matching(value, _TITLE, "small letters, digits and dashes, like 'big-buck-bunny'")


def _payee(value: object) -> str:
    return _matching(value, _PAYEE, "small letters, digits, dots and dashes, like 'studio.one'")


def _language(value: object) -> str:
    if not isinstance(value, str):
        _bad(f"is {value!r}, but must be a language tag, like 'en' or 'pt-BR'")
    return language_tag(value)


def _label(value: object) -> str:
    return _text(value, LABEL_LIMIT_CHARS)


def _companions(path: Path | None, key: str, value: object) -> tuple[Companion, ...]:
    """Read ``[[audio]]`` or ``[[subtitles]]``; their files lie where film.toml lies, or are named whole."""
    what = f"must be tables, each [[{key}]] with file and language"
    if not isinstance(value, list) or not value:
        _bad(what)
    rows = cast(list[object], value)
    if len(rows) > TRACKS_LIMIT:
        _bad(f"has {len(rows)} entries, at most {TRACKS_LIMIT} are allowed")
    found: list[Companion] = []
    for row in rows:
        table = _Table(path, f"{key}.", _table(row, what))
        file = table.need("file", lambda value: _file(path, value))
        found.append(Companion(file, table.need("language", _language), table.take("label", _label) or ""))
        table.finish()
    if len({(one.language, one.label) for one in found}) != len(found):
        _bad("has two of one language: give each of them a label of its own")
    return tuple(found)


def _file(path: Path | None, value: object) -> Path:
    name = _text(value, NAME_LIMIT_CHARS)
    found = path.parent / name if path else Path(name)
    if not found.is_file():
        _bad(f"is {name!r}, but there is no file {found}: put it there, or name its whole path")
    return found


def _access(value: object) -> Literal["open", "ticket"]:
    if value == "open":
        return "open"
    if value == "ticket":
        return "ticket"
    _bad(f"is {value!r}, but must be 'open' or 'ticket'")


def _territories(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        _bad("must be a list of country codes, like ['DE', 'AT']")
    codes = cast(list[object], value)
    return tuple(sorted({_matching(code, _TERRITORY, "a country code, like 'DE'") for code in codes}))


def _points(value: object) -> int:
    if type(value) is not int or not 1 <= value <= BASIS_POINTS:
        _bad(f"is {value!r}, but must be a whole number from 1 to {BASIS_POINTS} (basis points)")
    return value


def _sole_payee(payee: str | None, path: Path) -> tuple[Payee, ...]:
    if payee is None:
        message = f"nobody would be paid for this film: name a --payee, or write [[payees]] into {path}"
        raise UsageError(message, reason="no_payee")
    try:
        return (Payee(payee=_payee(payee), points=BASIS_POINTS),)
    except ValueError as error:
        raise UsageError(f"the payee {error}", reason="bad_value") from error


def _payees(path: Path | None, value: object) -> tuple[Payee, ...]:
    if not isinstance(value, list) or not value:
        _bad("must be tables, each [[payees]] with payee and points")
    rows = cast(list[object], value)
    if len(rows) > PAYEES_LIMIT:
        _bad(f"has {len(rows)} entries, at most {PAYEES_LIMIT} are allowed")
    payees: list[Payee] = []
    for row in rows:
        table = _Table(path, "payees.", _table(row, "must be tables, each [[payees]] with payee and points"))
        payees.append(Payee(payee=table.need("payee", _payee), points=table.need("points", _points)))
        table.finish()
    names = [payee.payee for payee in payees]
    if len(set(names)) != len(names):
        _bad("names somebody twice")
    total = sum(payee.points for payee in payees)
    if total != BASIS_POINTS:
        _bad(f"must have points that sum to {BASIS_POINTS}, but they sum to {total}")
    return tuple(payees)


def _table(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        _bad(what)
    return cast(dict[str, object], value)


def _window(path: Path | None, value: object) -> Window:
    table = _Table(path, "window.", _table(value, "must be a table with from and until"))
    window = Window(from_ms=table.take("from", _instant) or 0, until_ms=table.take("until", _instant) or 0)
    table.finish()
    if window.until_ms and window.until_ms <= window.from_ms:
        _bad("ends before it begins")
    return window


def _instant(value: object) -> int:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            _bad("needs a time zone, like 2026-12-01T20:00:00Z")
        moment = value
    elif isinstance(value, date):
        moment = datetime.combine(value, time(), UTC)
    else:
        _bad("must be a date or a time, like 2026-12-01 or 2026-12-01T20:00:00Z")
    milliseconds = round(moment.timestamp() * 1000)
    if milliseconds <= 0:
        _bad("is before 1970")
    return milliseconds
