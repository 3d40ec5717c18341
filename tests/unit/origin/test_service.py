from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcast.node.catalog.replica import Replica
from farcast.origin.keys import init
from farcast.origin.service import POSTS_AT_ONCE, TICKETS_A_DAY
from farcast.protocol.batch import Batch, PulsePost, open_ack, pulses_root, seal_parcel
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import decode, encode
from farcast.protocol.directory import Endpoint, RelayRecord, open_directory
from farcast.protocol.enrol import (
    DAYS_AHEAD,
    DeviceAnswer,
    DeviceRequest,
    RelayAnswer,
    RelayRequest,
    TicketRequest,
    TicketWish,
)
from farcast.protocol.identity import Identity
from farcast.protocol.pulse import START, PulseSigner, Viewing
from farcast.protocol.ticket import DAY_MS, Ticket, open_ticket
from farcast.tests.unit.origin.frontdesk import DEVICE, SESSION, Origin, body_of

STRANGER, RELAY = Identity(b"\x12" * 32), Identity(b"\x13" * 32)
VIEWING = Viewing(START, b"\5" * 32, 0, 0, [], bytes(16))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one origin to copy from, because stretching its passphrase takes long on purpose."""
    home = tmp_path_factory.mktemp("template") / "home"
    init(home, "Acme", [Endpoint("films.example", 7433, False)], "correct horse battery", time.time())
    return home


@pytest.fixture
def origin(template: Path, tmp_path: Path) -> Iterator[Origin]:
    shutil.copytree(template, tmp_path / "home")
    origin = Origin(tmp_path / "home")
    yield origin
    origin.close()


async def test_a_device_spends_its_token_and_gets_its_number(origin: Origin) -> None:
    token = origin.accounts.add("alice", origin.now_ms)
    answer = await origin.signed("/v1/devices", DeviceRequest(1, token, DEVICE.key), DEVICE)
    assert decode(DeviceAnswer, body_of(answer)) == DeviceAnswer(1, 1)
    spent = await origin.signed("/v1/devices", DeviceRequest(1, token, STRANGER.key), STRANGER)
    assert spent.status == 403
    assert b"used already" in body_of(spent)
    assert origin.registry.get_sample_value("farcast_origin_devices_enrolled_total") == 1


async def test_a_device_is_enrolled_by_its_own_signature_alone(origin: Origin) -> None:
    token = origin.accounts.add("alice", origin.now_ms)
    answer = await origin.signed("/v1/devices", DeviceRequest(1, token, DEVICE.key), STRANGER)
    assert answer.status == 403
    assert (await origin.signed("/v1/devices", DeviceRequest(1, token, DEVICE.key), DEVICE)).status == 200


@pytest.mark.parametrize("path", ["/v1/devices", "/v1/tickets", "/v1/relays"])
async def test_nothing_secret_is_asked_over_a_channel_others_can_read(origin: Origin, path: str) -> None:
    answer = await origin.post(path, b"", secure=False)
    assert answer.status == 403
    assert b"QUIC or TLS" in body_of(answer)


@pytest.mark.parametrize("path", ["/v1/devices", "/v1/tickets", "/v1/relays"])
async def test_a_signed_body_that_is_no_request_is_a_clear_refusal(origin: Origin, path: str) -> None:
    answer = await origin.signed(path, DeviceAnswer(1, 1), DEVICE)
    assert answer.status == 400


async def test_tickets_are_for_the_asked_days_and_sessions_and_name_nobody(origin: Origin) -> None:
    await origin.enrol()
    grants = await origin.tickets(origin.today, origin.today + DAYS_AHEAD)
    opened: list[Ticket] = [open_ticket(grant.ticket, origin.keys.keyring.ticket)[0] for grant in grants]
    assert [ticket.day for ticket in opened] == [origin.today, origin.today + DAYS_AHEAD]
    assert {ticket.session for ticket in opened} == {SESSION.key}
    assert len({ticket.tid for ticket in opened}) == 2
    account = origin.accounts.pseudonym("alice")
    assert [origin.office.holder(ticket).account for ticket in opened] == [account] * 2
    assert all(account not in grant.ticket for grant in grants)
    assert [origin.office.key(ticket.tid) for ticket in opened] == [grant.key for grant in grants]


@pytest.mark.parametrize("shift", [-2, DAYS_AHEAD + 1])
async def test_days_gone_and_days_too_far_get_no_ticket(origin: Origin, shift: int) -> None:
    await origin.enrol()
    request = TicketRequest(1, [TicketWish(origin.today + shift, SESSION.key)])
    answer = await origin.signed("/v1/tickets", request, DEVICE)
    assert answer.status == 400
    assert b"clock" in body_of(answer)


async def test_strangers_and_revoked_accounts_get_no_ticket(origin: Origin) -> None:
    await origin.enrol()
    request = TicketRequest(1, [TicketWish(origin.today, SESSION.key)])
    assert (await origin.signed("/v1/tickets", request, STRANGER)).status == 403
    origin.accounts.revoke("alice", (origin.today + 1) * DAY_MS)
    assert (await origin.signed("/v1/tickets", request, DEVICE)).status == 200
    tomorrow = TicketRequest(1, [TicketWish(origin.today + 1, SESSION.key)])
    assert (await origin.signed("/v1/tickets", tomorrow, DEVICE)).status == 403


async def test_a_device_is_held_to_so_many_tickets_a_day(origin: Origin) -> None:
    await origin.enrol()
    request = TicketRequest(1, [TicketWish(origin.today, SESSION.key)] * 15)
    statuses = [
        (await origin.signed("/v1/tickets", request, DEVICE)).status for _ in range(TICKETS_A_DAY // 15 + 1)
    ]
    assert statuses == [200] * (TICKETS_A_DAY // 15) + [429]
    origin.now_ms += DAY_MS
    request = TicketRequest(1, [TicketWish(origin.today, SESSION.key)])
    assert (await origin.signed("/v1/tickets", request, DEVICE)).status == 200


async def test_a_relay_with_an_invite_appears_in_the_directory_at_once(origin: Origin) -> None:
    origin.service.freshen()
    body = RelayRecord(
        1, RELAY.key, [Endpoint("relay.example", 7433, False)], "", origin.now_ms, origin.now_ms + DAY_MS
    )
    record = RELAY.seal("record", body)
    token = origin.accounts.invite("relay", origin.now_ms)
    answer = await origin.signed("/v1/relays", RelayRequest(2, token, record, "listed"), RELAY)
    assert decode(RelayAnswer, body_of(answer)).standing == "approved"
    directory = origin.service.directory()
    assert directory is not None
    assert [item.relay for item in open_directory(directory, origin.keys.catalog.key)[1]] == [RELAY.key]
    stolen = await origin.signed("/v1/relays", RelayRequest(2, "", record, "listed"), STRANGER)
    assert stolen.status == 403


async def test_pulses_are_stored_and_acked_by_post_and_by_batch(origin: Origin) -> None:
    await origin.enrol()
    grant = (await origin.tickets(origin.today))[0]
    signer = PulseSigner(grant.ticket, grant.key, SESSION)
    beacon = origin.now_ms // 3_600_000
    first, second = (signer.sign(origin.now_ms + at, at, beacon, VIEWING) for at in (0, 5_000))
    answer = await origin.post("/v1/pulses", encode(PulsePost(1, [grant.ticket], [first])), secure=False)
    assert answer.status == 200
    assert open_ack(body_of(answer), origin.keys.keyring.intake).tids[0].upto == 1
    stamps = [origin.now_ms]
    batch = Batch(1, RELAY.key, 1, bytes(32), origin.now_ms, origin.now_ms, pulses_root([second]), [], stamps)
    answer = await origin.post("/v1/pulses", seal_parcel(batch, [second], RELAY), secure=False)
    assert open_ack(body_of(answer), origin.keys.keyring.intake).tids[0].upto == 2
    (ack,) = origin.service.acks([signer.body.tid])
    assert open_ack(ack, origin.keys.keyring.intake).tids[0].upto == 2
    assert origin.service.acks([bytes(16)]) == []


async def test_pulses_that_are_no_post_are_a_clear_refusal(origin: Origin) -> None:
    assert (await origin.post("/v1/pulses", b"\x93\x01")).status == 400
    assert (await origin.post("/v1/pulses", b"\x92\x01")).status == 400


async def test_an_intake_with_enough_to_do_says_when_to_come_back(origin: Origin) -> None:
    arrival = asyncio.Event()
    post = encode(PulsePost(1, [], []))
    async with asyncio.TaskGroup() as tasks:
        waiting = [
            tasks.create_task(origin.post("/v1/pulses", post, arrival=arrival)) for _ in range(POSTS_AT_ONCE)
        ]
        await asyncio.sleep(0)
        answer = await origin.post("/v1/pulses", post)
        assert (answer.status, answer.headers["retry-after"]) == (429, "5")
        arrival.set()
    assert {task.result().status for task in waiting} == {200}
    assert (await origin.post("/v1/pulses", post)).status == 200


async def test_a_follower_takes_checkpoint_directory_and_beacons_from_the_service(
    origin: Origin, tmp_path: Path
) -> None:
    origin.log.append("publish", "bunny", Cid.of(RAW, b"manifest"), origin.now_ms)
    await origin.service.tick()
    replica = Replica(tmp_path / "replica", lambda: origin.keys.keyring)
    checkpoint, directory = origin.service.checkpoint(), origin.service.directory()
    assert checkpoint is not None
    assert directory is not None
    replica.advance(checkpoint, 0, origin.service.catalog.entries)
    assert replica.accept_directory(directory)
    assert [replica.accept_beacon(beacon) for beacon in origin.service.beacons()] == [True]
    assert list(replica.catalog.titles()) == ["bunny"]
    assert origin.registry.get_sample_value("farcast_origin_catalog_entries") == 1
    assert origin.registry.get_sample_value("farcast_origin_relays", {"standing": "approved"}) == 0
