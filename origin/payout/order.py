"""An order to pay one payee, and the only ways it may go (pure).

``reserved -> sent -> paid | failed | unknown``. An order is ``sent`` from the moment its request may
leave; whoever made that durable leaves it once. What was sent and not answered is ``unknown``, and
``unknown`` ends by a look-up of its key at the provider alone. A look-up that finds nothing lets the
same key go again while providers still remember it (24 h at the usual ones, so 23 h here): a request
that is only late then meets its own key. Later nothing is sent any more, and a look-up that finds
nothing proves nothing: a person decides.

Every method returns the order as it is afterwards, the same one where nothing changes.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from ...protocol.errors import UsageError

State = Literal["reserved", "sent", "unknown", "paid", "failed"]
OPEN: frozenset[State] = frozenset({"reserved", "sent", "unknown"})
Outcome = Literal["paid", "pending", "refused", "unsent", "silent", "absent"]
Task = Literal["send", "look", "lapse", "wait"]

HOUR_MS = 3_600_000
KEY_LIFE_MS = 24 * HOUR_MS
"""How long a provider knows that it has seen a key."""
RESEND_MS = KEY_LIFE_MS - HOUR_MS
"""How long a key may be sent again; the hour is for requests under way and clocks that differ."""
LEASE_MS = 120_000
"""How long whoever sends has to answer for it; longer than any method waits."""
RETRY_FIRST_MS, RETRY_LAST_MS = 30_000, 6 * HOUR_MS
REASON_CHARS = 200
KEY_CHARS = 32
"""A key fits the 35 characters of an ISO 20022 end-to-end identification."""


class Verdict(NamedTuple):
    """What a provider said of a key, or that it said nothing.

    ``paid``, ``pending`` (it has it) and ``refused`` (it never pays it) are its word; ``unsent``: it
    surely never got it; ``silent``: nobody knows; ``absent``: a look-up found no such key.
    """

    outcome: Outcome
    reference: str = ""
    reason: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One payment: ``gross_cents`` leave what is owed, ``net_cents`` go to the payee, the rest is tax.

    ``attempt`` counts the requests and fences their answers; ``sends`` those of them that may have
    arrived, the first at ``sent_ms``. ``missed_ms`` is when a look-up last found nothing, ``due_ms``
    when there is something to do next. Times are UTC in milliseconds, 0 where there is none.
    """

    key: str
    payee: str
    method: str
    region: str
    gross_cents: int
    tax_cents: int
    net_cents: int
    created_ms: int
    changed_ms: int
    due_ms: int
    state: State = "reserved"
    attempt: int = 0
    sends: int = 0
    sent_ms: int = 0
    missed_ms: int = 0
    tries: int = 0
    reference: str = ""
    reason: str = ""

    @property
    def open(self) -> bool:
        """Whether anything can still happen to it."""
        return self.state in OPEN

    def task(self, now_ms: int, *, looks_up: bool, hurry: bool = False) -> Task:
        """Say what is to be done with it now; ``looks_up`` where its provider can be asked for a key.

        A person's ``hurry`` goes before every pause but that for an answer under way.
        """
        awaited = self.state == "sent" and not self.reference
        if not self.open or (now_ms < self.due_ms and (awaited or not hurry)):
            return "wait"
        if self.state == "reserved":
            return "send" if self.may_be_sent(now_ms) else "lapse"
        if not looks_up:
            return "wait"
        return "lapse" if awaited else "look"

    def may_be_sent(self, now_ms: int) -> bool:
        """Say whether a request may leave: never before, or while its key is surely remembered.

        A clock that went back cannot tell the age of a key.
        """
        if self.state != "reserved":
            return False
        return not self.sends or (self.changed_ms <= now_ms and now_ms - self.sent_ms < RESEND_MS)

    def begun(self, now_ms: int, reference: str = "") -> Order:
        """Take it as sent, before the request leaves; ``reference`` where the method has its own word for it.

        Raises:
            ValueError: it may not be sent.

        """
        if not self.may_be_sent(now_ms):
            raise ValueError(self.state)
        return self._moved(
            "sent",
            now_ms,
            due_ms=now_ms + LEASE_MS,
            attempt=self.attempt + 1,
            sends=self.sends + 1,
            sent_ms=self.sent_ms if self.sends else now_ms,
            reference=reference,
        )

    def answered(self, attempt: int, verdict: Verdict, now_ms: int) -> Order:
        """Take the answer to request ``attempt``; a late one of an order that went on changes nothing."""
        if self.state != "sent" or attempt != self.attempt:
            return self
        outcome, reference, reason = verdict
        if outcome == "paid":
            return self._ended("paid", now_ms, reference or self.reference)
        if outcome == "pending":
            reference = reference or self.reference or self.key
            return self._moved("sent", now_ms, tries=0, reference=reference, due_ms=now_ms + RETRY_FIRST_MS)
        if outcome == "unsent":
            sends = self.sends - 1
            return self._again(
                "reserved", now_ms, reason, sends=sends, sent_ms=self.sent_ms if sends else 0, reference=""
            )
        if outcome == "refused" and self.sends == 1:
            return self._ended("failed", now_ms, reference, reason)
        # the refusal of a repeated key may mean the repetition, and the one before may have been paid
        return self._again("unknown", now_ms, reason or "no answer", tries=0, reference="")

    def lapsed(self, now_ms: int) -> Order:
        """Give up waiting: for the answer of a sender that is gone, or for a key that grew too old."""
        if self.task(now_ms, looks_up=True) != "lapse":
            return self
        reason = "no answer" if self.state == "sent" else "its key is too old to be sent again"
        return self._moved("unknown", now_ms, due_ms=now_ms, tries=0, reason=reason, reference="")

    def recognised(self, verdict: Verdict, now_ms: int) -> Order:
        """Take what the provider says of a key that never left these books, before it leaves them.

        It is known there where the books were restored from a backup older than the payment. The same
        order where the provider does not know it: then it may be sent.
        """
        if self.state != "reserved" or self.sends or verdict.outcome == "absent":
            return self
        outcome, reference, reason = verdict
        if outcome == "paid":
            return self._ended("paid", now_ms, reference, "paid before these books began")
        if outcome == "refused":
            return self._ended("failed", now_ms, reference, reason)
        if outcome == "pending":
            reference = reference or self.key
            return self._again("sent", now_ms, "", reference=reference, sends=1, sent_ms=now_ms)
        return self._again("reserved", now_ms, reason)

    def looked_up(self, attempt: int, verdict: Verdict, now_ms: int) -> Order:
        """Take what the provider says of the key after request ``attempt``: all that ends ``unknown``."""
        waits = self.state == "unknown" or (self.state == "sent" and self.reference)
        if not waits or attempt != self.attempt:
            return self
        outcome, reference, reason = verdict
        if outcome == "paid":
            return self._ended("paid", now_ms, reference or self.reference)
        if outcome == "refused":
            return self._ended("failed", now_ms, reference or self.reference, reason)
        if outcome == "pending":
            return self._again("sent", now_ms, "", reference=reference or self.reference or self.key)
        if outcome == "absent":
            return self._missed(now_ms)
        return self._again(self.state, now_ms, reason or "the provider does not answer")

    def _missed(self, now_ms: int) -> Order:
        """Take that the provider knows no such key."""
        if self.state == "sent":  # it said that it has it
            return self._again("unknown", now_ms, "the provider lost it", tries=0, reference="")
        back = replace(self, state="reserved")
        if back.may_be_sent(now_ms):
            return self._moved("reserved", now_ms, due_ms=now_ms, missed_ms=now_ms, reason="it never arrived")
        return self._again("unknown", now_ms, "the provider does not know its key", missed_ms=now_ms)

    def decided(self, *, paid: bool, now_ms: int, looks_up: bool, reason: str = "") -> Order:
        """Take a person's word for how it ended.

        Raises:
            UsageError: it ended otherwise, or the provider's word is to be had.

        """
        end: State = "paid" if paid else "failed"
        if not self.open:
            if self.state == end:
                return self
            raise UsageError(f"payout {self.key} is {self.state}; that stands", reason="ended")
        if self.state == "reserved" and not self.sends:
            if paid:
                message = f"payout {self.key} was not sent yet; `farcast origin payout run` sends it"
                raise UsageError(message, reason="not_sent")
        elif looks_up and not (self.state == "unknown" and self.missed_ms - self.sent_ms >= KEY_LIFE_MS):
            message = (
                f"payout {self.key} was sent, and its provider is asked how it ended; a person may say so "
                "only when the provider, asked a day after, does not know it"
            )
            raise UsageError(message, reason="look_up")
        return self._ended(end, now_ms, self.reference, reason or "by hand")

    def dropped(self, reason: str, now_ms: int) -> Order:
        """Take back what never left; the same order where it may have."""
        if self.state != "reserved" or self.sends:
            return self
        return self._ended("failed", now_ms, "", reason)

    def _ended(self, state: State, now_ms: int, reference: str, reason: str = "") -> Order:
        return self._moved(state, now_ms, due_ms=0, reference=reference, reason=reason)

    def _again(self, state: State, now_ms: int, reason: str, **changes: int | str) -> Order:
        """Return it in ``state``, to be taken up after a pause that doubles each time."""
        tries = int(changes.pop("tries", self.tries)) + 1
        pause_ms = min(RETRY_FIRST_MS << min(tries - 1, 16), RETRY_LAST_MS)
        return self._moved(state, now_ms, tries=tries, due_ms=now_ms + pause_ms, reason=reason, **changes)

    def _moved(self, state: State, now_ms: int, **changes: int | str) -> Order:
        if "reason" in changes:
            changes["reason"] = str(changes["reason"])[:REASON_CHARS]
        return replace(self, state=state, changed_ms=max(now_ms, self.changed_ms), **changes)


def order_key(origin: bytes, payee: str, number: int) -> str:
    """Return the idempotency key of an origin's ``number``-th order to ``payee``.

    It follows from the books alone: an origin restored from a backup names a payment it has forgotten
    as it did the first time.
    """
    name = b"farcast/payout/v1\0" + origin + payee.encode() + b"\0" + str(number).encode()
    return sha256(name).hexdigest()[:KEY_CHARS]
