"""Judging: the verdict on each pulse of one arrival that does not wait for its seal."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol.identity import verify
from .dossier import Dossier
from .frame import DUPLICATE, EQUIVOCATION, STORED, UNPROVEN
from .opened import Opened, Post
from .register import Register

BODIES_KEPT = 4
"""Bodies kept as evidence for one sequence number; a fifth proves nothing more. So many unproven ones
are kept of each enrolled relay besides, out of the others' way."""


class Round:
    """One arrival being judged; ``used`` are the places of the new tickets that something is kept under.

    ``news`` says whether anything in it must be kept. ``eager`` checks every signature, else a body
    that is linked to needs none; ``now_ms`` is the origin's time. A ticket is proven before any of its
    pulses is checked, taken or doubted here.
    """

    def __init__(
        self,
        register: Register,
        tickets: list[bytes],
        now_ms: int,
        carrier: bytes,
        *,
        relay: bool,
        eager: bool,
    ) -> None:
        self.used: set[int] = set()
        self.news = False
        self._register = register
        self._tickets = tickets
        self._learned = register.learn(tickets)
        self._new: dict[bytes, Dossier] = {}
        self.now_ms = now_ms
        self._carrier = carrier
        self._relay = relay
        self._eager = eager
        self._saved: set[int] = set()

    def dossier(self, tid: bytes) -> Dossier | None:
        """Return the dossier of a ticket that came along; it is known once something is kept in it."""
        found = self._learned.get(tid)
        if found is None:
            return None
        if tid not in self._new:
            self._new[tid] = Dossier(found[1])
        return self._new[tid]

    def use(self, dossier: Dossier) -> None:
        """Make a ticket that came along known."""
        tid = dossier.ticket.tid
        if tid in self._new:
            index = self._learned[tid][0]
            if self._register.use(dossier, self._tickets[index]):
                self.used.add(index)

    def check(self, post: Post, dossiers: Sequence[Dossier | None]) -> list[bool | None]:
        """Say of each pulse whether its signature is right; None where the verdict needs none.

        A ticket without a dossier here is not asked about.
        """
        keys = [
            None
            if isinstance(item, str)
            or dossier is None
            or ((item.pulse.seq in dossier.names or dossier.links) and self._needless(dossier, item))
            else dossier.session
            for item, dossier in zip(post.items, dossiers, strict=True)
        ]
        return [
            None if key is None or isinstance(item, str) else verify("pulse", key, body, item.sig)
            for item, body, key in zip(post.items, post.bodies, keys, strict=True)
        ]

    def _needless(self, dossier: Dossier, item: Opened) -> bool:
        seq = item.pulse.seq
        return dossier.has(seq, item.name) or (not self._eager and dossier.linked(seq, item.name))

    def opens(self, dossier: Dossier, items: Sequence[Opened]) -> None:
        """Note that these pulses of a ticket are put under their numbers, each as the first there."""
        register, tid = self._register, dossier.ticket.tid
        if tid not in register.open:
            self.use(dossier)
        register.open[tid] = self.now_ms
        register.undo.extend(items)
        register.open_pulses += len(items)
        self.news = True

    def again(self, dossier: Dossier, item: Opened) -> str:
        """Return the verdict on one more copy of a body that is here; it may have come earlier."""
        seq, name = item.pulse.seq, item.name
        if item.stamp_ms < dossier.stamp(seq, name):
            self._save(dossier)
            self.news |= dossier.lower(seq, name, item.stamp_ms)
        return DUPLICATE

    def take(self, dossier: Dossier, item: Opened, signed: bool | None) -> str:  # noqa: FBT001 - as checked
        """Return the verdict on a pulse by what ``check`` found; empty where only a link could help it."""
        if dossier.has(item.pulse.seq, item.name):
            return self.again(dossier, item)
        return "" if signed is False else self._accept(dossier, item)

    def doubt(self, dossier: Dossier, item: Opened) -> str:
        """Return the verdict on a pulse whose signature is wrong."""
        seq, name = item.pulse.seq, item.name
        if dossier.has(seq, name):
            return self.again(dossier, item)
        if dossier.linked(seq, name):
            return self._accept(dossier, item)
        if not self._relay or not self._may_hold(dossier, item):
            return "bad_signature"
        self._register.charge([self._carrier])
        self.use(dossier)
        self._save(dossier)
        dossier.hold(item)
        self.news = True
        return UNPROVEN

    def _may_hold(self, dossier: Dossier, item: Opened) -> bool:
        """Say whether a copy is kept whose signature is wrong: of a body held already, an earlier one."""
        held = dossier.unproven.get(item.name)
        if held is not None:
            return item.stamp_ms < held.stamp_ms
        branch = [
            one
            for one in dossier.unproven.values()
            if one.carrier == self._carrier and one.pulse.seq == item.pulse.seq
        ]
        return len(branch) < BODIES_KEPT and not self._register.refusal(dossier, item.pulse, self.now_ms)

    def _accept(self, dossier: Dossier, item: Opened) -> str:
        """Return the verdict on an authentic body that is not here yet."""
        pulse, register, names = item.pulse, self._register, dossier.names
        seq = pulse.seq
        if self._new:
            self.use(dossier)
        bodies = dossier.bodies(seq) if seq in names else 0
        code = register.refusal(dossier, pulse, self.now_ms)
        if code:
            if not bodies and dossier.rejects.get(seq) != code:
                self._save(dossier)
                dossier.rejects[seq] = code
                self.news = True
            return code
        if bodies >= BODIES_KEPT:
            return "too_many_bodies"
        self.news = True
        if (seq == 1 or names.get(seq - 1) == pulse.prev) and not (
            bodies or dossier.rejects or dossier.unproven
        ):
            self.opens(dossier, (item,))
            dossier.put(item)
            return STORED
        self._save(dossier)
        before = len(dossier.open)
        dossier.keep(item)
        register.opened(pulse.tid, len(dossier.open) - before, self.now_ms)
        return EQUIVOCATION if bodies else STORED

    def _save(self, dossier: Dossier) -> None:
        if id(dossier) not in self._saved:
            self._saved.add(id(dossier))
            self._register.save(dossier)
