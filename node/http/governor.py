"""The governor: what a server may take on and send now, so that an operator's contract holds.

A pure core that every carrier of one process asks; time is an argument (monotonic seconds). The
seam is stable: ``connect``/``disconnect`` around a connection, ``request`` before each request,
``owe`` before bytes go out, ``flow`` to count them. ``Rules`` are the contract's numbers and ``state`` says
whether new transfers are taken on; both may be set at any moment and hold from the next question on,
for connections that are already open too. Carriers that wait use ``meter.Meter`` above this.

* WAN and LAN: ``local(peer)`` (a ``Lan``; may be replaced) says who is exempt from rate, client
  limits and hibernation; loopback, private and link-local addresses by default. The bytes of both
  sides are counted (``wan.bytes``, ``lan.bytes``: what the monthly volume is reckoned from).
* A box that serves its own links alone says so by ``served``: who is not is no client of it, and the
  carriers drop what comes from there before they look at it (``serves``).
* The upload rate is one bucket of a second's worth of tokens for the whole process. With N
  processes each gets an N-th (``Rules.share``).
* A client is an IPv4 address or an IPv6 /64. Clients are kept in memory only, in a table of bounded
  size whose longest unseen leave first; one with an open connection stays.

With nothing limited, ``guarded`` of both sides and ``metered`` are False, and a hot path asks nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple, Protocol

CLIENT_LIMIT = 16_384
QUANTA_S = 20
LEAST_QUANTUM_BYTES, MOST_QUANTUM_BYTES = 64 << 10, 1 << 20
LONGEST_WAIT_S = 10.0
"""Transfers are refused while those under way already wait this long for the rate."""
SECONDS_KEPT = 1.0
"""How much of an unused rate is kept: a burst is at most this many seconds' worth."""

LAN = (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
    "::1/128", "fc00::/7", "fe80::/10",
)  # fmt: skip
"""Loopback, private (RFC 1918, RFC 4193) and link-local; carrier-grade NAT (100.64/10) is the WAN."""


class Lan:
    """Says who is on the LAN: a predicate of peers' addresses that can be told to another process."""

    def __init__(self, networks: Sequence[str] = LAN) -> None:
        """Count ``networks`` as the LAN; raises ``ValueError`` where one is no network."""
        self.networks = tuple(networks)
        self._networks = [ip_network(text) for text in networks]
        self._loopback = "127.0.0.0/8" in networks

    def __call__(self, peer: str) -> bool:
        """Say whether ``peer`` is on the LAN; what is no address is not."""
        if self._loopback and peer.startswith("127."):
            return True
        address = _address(peer)
        return address is not None and any(
            address in network for network in self._networks if network.version == address.version
        )


is_local = Lan()
"""Who is on the LAN where nobody says otherwise."""


def networks_of(local: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the networks that ``local`` stands for; of another predicate than a ``Lan``, all or none."""
    if isinstance(local, Lan):
        return local.networks
    return LAN if local("127.0.0.1") else ()


class Served(Protocol):
    """Says who is served at all, by terms that can be told to another process."""

    @property
    def terms(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What makes it (``node.links.Links``)."""
        ...

    def __call__(self, peer: str, /) -> bool:
        """Say whether ``peer`` is."""
        ...


OFF_LINK = "off_link"
"""The reason for which those who are not ``served`` are counted."""


class Rules(NamedTuple):
    """The numbers of a contract; None is no limit. Rates are per second."""

    upload_bytes_s: int | None = None
    connections: int | None = None
    client_connections: int | None = None
    client_requests_s: float | None = None
    client_burst: int = 50
    """Requests a client may make at once before ``client_requests_s`` holds."""

    def share(self, processes: int) -> Rules:
        """Return what one of ``processes`` equal ones may do, so that together they keep these rules.

        The kernel spreads connections evenly; a client's own limits are spread with them.
        """

        def part(limit: int | None) -> int | None:
            return None if limit is None else max(1, limit // processes)

        requests_s = self.client_requests_s
        return Rules(
            part(self.upload_bytes_s),
            part(self.connections),
            part(self.client_connections),
            None if requests_s is None else requests_s / processes,
            max(1, self.client_burst // processes),
        )


class State(Enum):
    """Whether new transfers are taken on; those under way always finish."""

    SERVING = "serving"
    PAUSED = "paused"
    """The operator said so: nobody is served."""
    HIBERNATING = "hibernating"
    """The month's volume is used up, or these are quiet hours: only the LAN is served."""


class Refusal(NamedTuple):
    """Why not: an HTTP status, a reason word, one sentence, and when to come back."""

    status: int
    reason: str
    detail: str
    retry_after_s: float


class Flow:
    """Bytes sent to one side, WAN or LAN, and whether ``request`` could refuse it anything (``guarded``)."""

    __slots__ = ("bytes", "guarded")

    def __init__(self) -> None:
        """Start at nothing."""
        self.bytes = 0
        self.guarded = False


class Bucket:
    """A token bucket of ``rate`` a second that may go into debt; ``level`` is what is in it."""

    __slots__ = ("_at", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Start full."""
        self.rate = rate
        self.burst = burst
        self.level = burst
        self._at = now

    def fill(self, now: float) -> float:
        """Add what time brought and return the level."""
        if now > self._at:
            self.level = min(self.burst, self.level + (now - self._at) * self.rate)
            self._at = now
        return self.level

    def owed_s(self, now: float) -> float:
        """Return how long the debt takes to be paid."""
        return max(0.0, -self.fill(now) / self.rate)

    def wait_s(self, level: float) -> float:
        """Return how long until ``level`` is reached, as of the last ``fill``."""
        return max(0.0, (min(level, self.burst) - self.level) / self.rate)


class _Client:
    __slots__ = ("bucket", "connections")

    def __init__(self) -> None:
        self.connections = 0
        self.bucket: Bucket | None = None


class Governor:
    """Keeps the rules of one process; see the module for who calls what."""

    def __init__(
        self,
        rules: Rules | None = None,
        local: Callable[[str], bool] | None = None,
        *,
        processes: int = 1,
        clients: int = CLIENT_LIMIT,
    ) -> None:
        """Keep ``rules`` (nothing limited by default) towards everybody who is not ``local``.

        With ``processes`` that serve together this one keeps its share; ``wan`` and ``lan`` of the main
        process count the bytes of all.
        """
        self._processes = processes
        self.local = local or is_local
        self.served: Served | None = None
        """Who is served at all; None: everybody."""
        self.wan, self.lan = Flow(), Flow()
        self.connections = 0
        self.metered = False
        """Whether ``owe`` could hold anybody back."""
        self.quantum_bytes = MOST_QUANTUM_BYTES
        """How much of the rate one transfer may take at a time."""
        self.state = State.SERVING
        self.retry_after_s = 60.0
        self._clients: OrderedDict[int, _Client] = OrderedDict()
        self._client_limit = clients
        self._upload: Bucket | None = None
        self.rules = Rules()
        """What this process keeps: its share of what was set."""
        self.set_rules(rules or self.rules, 0.0)

    @property
    def clients(self) -> int:
        """How many clients are remembered."""
        return len(self._clients)

    def set_rules(self, rules: Rules, now: float) -> None:
        """Change the contract's numbers, given for the whole box."""
        self.rules = rules = rules.share(self._processes)
        rate = rules.upload_bytes_s
        if rate is None:
            self._upload = None
        elif self._upload is None or self._upload.rate != rate:
            self._upload = Bucket(rate, rate * SECONDS_KEPT, now)
            self.quantum_bytes = max(LEAST_QUANTUM_BYTES, min(MOST_QUANTUM_BYTES, rate // QUANTA_S))
        for client in self._clients.values():
            client.bucket = None
        self._set_flags()

    def set_state(self, state: State, retry_after_s: float = 60.0) -> None:
        """Take on new transfers or refuse them, telling clients to come back after ``retry_after_s``."""
        self.state = state
        self.retry_after_s = retry_after_s
        self._set_flags()

    def serves(self, peer: str) -> bool:
        """Say whether anything of ``peer`` is looked at; its zone belongs to a link-local address."""
        return self.served is None or self.served(peer)

    def connect(self, peer: str) -> Refusal | None:
        """Count a new connection of ``peer``; one refused is not counted and must be closed."""
        most = self.rules.connections
        if most is not None and self.connections >= most:
            return Refusal(503, "too_many_connections", "this box has all the connections it may have", 1)
        most = self.rules.client_connections
        if most is not None and not self.local(peer):
            client = self._client(peer)
            if client.connections >= most:
                detail = f"more than {most} connections from one address; close one first"
                return Refusal(429, "client_connections", detail, 1)
            client.connections += 1
        self.connections += 1
        return None

    def disconnect(self, peer: str) -> None:
        """Count the end of a connection that ``connect`` took on."""
        self.connections -= 1
        if self._clients and (client := self._clients.get(_client_of(peer))) is not None:
            client.connections = max(0, client.connections - 1)

    def request(self, peer: str, now: float, *, transfer: bool) -> Refusal | None:
        """Say whether a request may be answered now; ``transfer``: its answer is a block or a file."""
        state, local = self.state, self.local(peer)
        if transfer and (state is State.PAUSED or (state is State.HIBERNATING and not local)):
            detail = "this box takes on no new transfers now; another one may"
            return Refusal(503, state.value, detail, self.retry_after_s)
        upload, rate = self._upload, self.rules.client_requests_s
        if local:
            return None
        if transfer and upload is not None and (wait_s := upload.owed_s(now)) > LONGEST_WAIT_S:
            return Refusal(429, "upload_rate", "this box's upload rate is used up; another may serve", wait_s)
        if rate is None:
            return None
        client = self._client(peer)
        bucket = client.bucket
        if bucket is None:
            bucket = client.bucket = Bucket(rate, self.rules.client_burst, now)
        if bucket.fill(now) < 1:
            detail = f"more than {rate:g} requests a second from one address; slow down"
            return Refusal(429, "client_requests", detail, bucket.wait_s(1))
        bucket.level -= 1
        return None

    def owe(self, size_bytes: int, now: float) -> float:
        """Take ``size_bytes`` at once, into debt if need be; returns how long to wait before sending.

        Whoever asks next waits behind it, so that transfers share the rate evenly: ask for at most
        ``quantum_bytes`` at a time, and send what was waited for. Not for local peers.
        """
        bucket = self._upload
        if bucket is None:
            return 0.0
        bucket.fill(now)
        bucket.level -= size_bytes
        return bucket.owed_s(now)

    def give_back(self, size_bytes: int) -> None:
        """Return what was owed and then not sent."""
        bucket = self._upload
        if bucket is not None:
            bucket.level = min(bucket.burst, bucket.level + size_bytes)

    def flow(self, peer: str) -> Flow:
        """Return the side ``peer`` is on; add to its ``bytes`` what was sent."""
        return self.lan if self.local(peer) else self.wan

    def _set_flags(self) -> None:
        self.metered = self._upload is not None
        self.lan.guarded = self.state is State.PAUSED
        limited = self.metered or self.rules.client_requests_s is not None
        self.wan.guarded = limited or self.state is not State.SERVING

    def _client(self, peer: str) -> _Client:
        key = _client_of(peer)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client()
            if len(self._clients) > self._client_limit:
                self._drop_unseen()
        else:
            self._clients.move_to_end(key)
        return client

    def _drop_unseen(self) -> None:
        """Drop the client unseen for longest that has no connection; looks at a few at most."""
        for _ in range(16):
            key, client = next(iter(self._clients.items()))
            if not client.connections:
                del self._clients[key]
                return
            self._clients.move_to_end(key)
        self._clients.popitem(last=False)  # so many open ones: the connection limits hold them


def _client_of(peer: str) -> int:
    """Return what a client is told by: the IPv4 address, or the upper half of an IPv6 one."""
    address = _address(peer)
    if isinstance(address, IPv4Address):
        return int(address)
    return -1 if address is None else (int(address) >> 64) + (1 << 32)


def _address(peer: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
