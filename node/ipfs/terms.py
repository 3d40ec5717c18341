"""What a request to the gateway asks for: the parameters and Accept, read once and checked.

The trustless gateway specification, and RFC 9110 section 12.5.1 for Accept. A parameter of the URL
beats the same of Accept (IPIP-0523).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ...protocol.cid import CBOR, DAG_CBOR, DAG_JSON, JSON
from ...protocol.errors import RefusedError
from ...protocol.traversal import Scope, Span

RAW_TYPE = "application/vnd.ipld.raw"
CAR_TYPE = "application/vnd.ipld.car"
ACCEPT_LIMIT = 32
"""Media ranges of one Accept that are looked at."""


class Form(NamedTuple):
    """One form of answer: its media type, its ending, and the only codec it is for (None: any)."""

    media_type: str
    ending: str
    codec: int | None = None


FORMS = {
    "raw": Form(RAW_TYPE, "bin"),
    "car": Form(CAR_TYPE, "car"),
    "dag-cbor": Form("application/vnd.ipld.dag-cbor", "cbor", DAG_CBOR),
    "dag-json": Form("application/vnd.ipld.dag-json", "json", DAG_JSON),
    "cbor": Form("application/cbor", "cbor", CBOR),
    "json": Form("application/json", "json", JSON),
}
"""What ``format`` may be; a block is sent as it is, never converted to another codec (IPIP-0524)."""

_BY_TYPE = {form.media_type: name for name, form in FORMS.items()}
_SCOPES: dict[str, Scope] = {"block": "block", "entity": "entity", "all": "all"}
_ORDERS = ("dfs", "unk")
_DUPS = {"y": True, "n": False}
_NUMBER = "0|-?[1-9][0-9]{0,15}"
_SPAN = re.compile(rf"({_NUMBER}):(\*|{_NUMBER})")
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_WITHIN_ACCEPT = {"version": "car-version", "order": "car-order", "dups": "car-dups"}
_CAR_DEFAULTS = {"car-version": "1", "car-order": "", "car-dups": "n"}


class _Offer(NamedTuple):
    """One media range of Accept that this gateway has a form for."""

    name: str
    parameters: dict[str, str]
    quality: float


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one answer.

    ``span`` is set with ``scope`` entity only; ``order`` is what was asked for, empty where nothing
    was; ``location`` is the query under which a cache may file the answer, None where the URL names
    it already.
    """

    name: str
    scope: Scope
    span: Span | None
    dups: bool
    order: Literal["", "dfs", "unk"]
    location: str | None

    @property
    def form(self) -> Form:
        """The form of the answer."""
        return FORMS[self.name]

    @classmethod
    def of(cls, query: Mapping[str, str], accept: str) -> Terms:
        """Read the terms of a request.

        Raises:
            RefusedError: 400 for a parameter that means nothing or no form at all, 406 where Accept
                names only forms that this gateway does not have.

        """
        offers = _offers(accept)
        name = query.get("format")
        if name is not None and name not in FORMS:
            raise _bad("format is one of " + ", ".join(FORMS), "no_format")
        chosen = _choose(offers, query, name)
        if chosen is None:
            raise _unnamed(accept)
        name, car = chosen
        if name != "car":
            told = "format" in query and (not offers or name in [offer.name for offer in offers])
            return cls(name, "block", None, dups=False, order="", location=None if told else f"format={name}")
        scope = query.get("dag-scope", "all")
        if scope not in _SCOPES:
            raise _bad("dag-scope is block, entity or all", "bad_query")
        span = _span(query["entity-bytes"]) if "entity-bytes" in query else None
        order: Literal["", "dfs", "unk"] = "dfs" if car["car-order"] == "dfs" else ""
        order = "unk" if car["car-order"] == "unk" else order
        return cls(
            "car",
            "entity" if span else _SCOPES[scope],
            span,
            dups=_DUPS[car["car-dups"]],
            order=order,
            location=_location(query, offers, car),
        )


def _choose(
    offers: list[_Offer], query: Mapping[str, str], name: str | None
) -> tuple[str, Mapping[str, str]] | None:
    """Return the form that is wanted most and exists, with a CAR's parameters; None where none does.

    Raises:
        RefusedError: 400 where the URL itself asks for what does not exist.

    """
    told = {key: query[key] for key in _CAR_DEFAULTS if key in query}
    wrong = _wrong(_CAR_DEFAULTS | told)
    if wrong:
        raise _bad(wrong, "bad_query")
    named = [offer for offer in offers if name in (None, offer.name)]
    if name is not None and not named:
        named = [_Offer(name, {}, 1.0)]
    for offer in named:
        car = _CAR_DEFAULTS | offer.parameters | told
        if not _wrong(car):
            return offer.name, car
    return None


def _unnamed(accept: str) -> RefusedError:
    """Return the refusal of a request that names no form, or only such as do not exist here."""
    if all(part.partition(";")[0].strip() in ("", "*/*", "application/*") for part in accept.split(",")):
        return _bad("this is a trustless gateway: ask with ?format=raw or ?format=car", "no_format")
    message = f"this is a trustless gateway: it answers {RAW_TYPE} and {CAR_TYPE}"
    return RefusedError(message, status=406, reason="not_acceptable")


def _offers(accept: str) -> list[_Offer]:
    """Return the forms named in Accept, the most wanted first, in the order given among equals."""
    found: list[_Offer] = []
    for part in accept.split(",", ACCEPT_LIMIT)[:ACCEPT_LIMIT]:
        media_type, *fields = (field.strip() for field in part.split(";"))
        name = _BY_TYPE.get(media_type.lower())
        if name is None:
            continue
        values = {
            key.strip().lower(): value.strip().strip('"')
            for key, _, value in (f.partition("=") for f in fields)
        }
        quality = values.pop("q", "1")
        if not _QUALITY.fullmatch(quality) or float(quality) == 0:
            continue
        parameters = {
            _WITHIN_ACCEPT[key]: value for key, value in values.items() if key in _WITHIN_ACCEPT and value
        }
        found.append(_Offer(name, parameters, float(quality)))
    return sorted(found, key=lambda offer: -offer.quality)


def _wrong(car: Mapping[str, str]) -> str:
    """Say what of a CAR's parameters does not exist here; empty where all do."""
    if car["car-version"] != "1":
        return "car-version is 1"
    if car["car-order"] not in ("", *_ORDERS):
        return "car-order is dfs or unk"
    return "" if car["car-dups"] in _DUPS else "car-dups is y or n"


def _span(text: str) -> Span:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise _bad("entity-bytes is FROM:TO, whole numbers, TO perhaps *", "bad_query")
    span = Span(int(match[1]), None if match[2] == "*" else int(match[2]))
    if span.last is not None and (span.first < 0) == (span.last < 0) and span.last < span.first:
        raise _bad("entity-bytes ends before it begins", "bad_query")
    return span


def _location(query: Mapping[str, str], offers: list[_Offer], car: Mapping[str, str]) -> str | None:
    """Return the query that names all that was negotiated, None where the URL did so itself."""
    matches = not offers or "car" in [offer.name for offer in offers]
    differs = [key for key, value in car.items() if value != query.get(key, _CAR_DEFAULTS[key])]
    both = any(
        key in query and query[key] != value for offer in offers for key, value in offer.parameters.items()
    )
    if "format" in query and matches and not differs and not both:
        return None
    kept = {key: query[key] for key in ("dag-scope", "entity-bytes") if key in query}
    kept |= {key: value for key, value in car.items() if key in query or value != _CAR_DEFAULTS[key]}
    return "&".join(["format=car", *(f"{key}={value}" for key, value in kept.items())])


def _bad(message: str, reason: str) -> RefusedError:
    return RefusedError(message, status=400, reason=reason)
