from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from farcast.node.verify import read_receipts, verify
from farcast.origin.money.ledger import Ledger
from farcast.origin.money.report import Report, report_files
from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.merkle import leaf_hash, verify_inclusion
from farcast.protocol.note import Checkpoint, seal
from farcast.protocol.statement import (
    CHECKPOINT,
    CONSISTENCY,
    HEAD,
    LEAVES,
    Consistency,
    FileHash,
    Head,
    Line,
    Statement,
    lines_root,
    log_name,
    open_head,
    pack_lines,
    pack_tickets,
    seal_head,
    unpack_lines,
)
from farcast.tests.unit.origin.mint import (
    CLOSE_MS,
    FIRST_DAY,
    FIRST_MS,
    INTAKE,
    MONTH,
    PUBLISHER,
    RELAY,
    SETTLEMENT,
    Shelf,
    Viewer,
    batch,
    closing,
    open_intake,
    post,
    read,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 7_000, "bob": 3_000})
DAY_MS = 86_400_000
KEYS = [SETTLEMENT.key]


class World:
    """A settled month: its report, the acks given for it, and one given after it."""

    def __init__(self, folder: Path) -> None:
        intake = open_intake(folder)
        self.viewers = [Viewer(number) for number in range(4)]
        self.acks: list[bytes] = []
        for viewer in self.viewers[:3]:
            viewer.watch(FILM, 20)
            now_ms = FIRST_MS + 4 * DAY_MS
            self.acks.append(intake.post(post([viewer], viewer.pulses[:9]), now_ms))
            stamps = [now_ms] * len(viewer.pulses)
            self.acks.append(intake.batch(batch(RELAY, [viewer], viewer.pulses, stamps), now_ms + 1))
        late = self.viewers[3]
        ledger = Ledger(folder / "ledger.db")
        ledger.book_revenue(50_001, FIRST_MS, b"1")
        books = closing(folder, ledger, SHELF)
        books.settle(MONTH, now_ms=CLOSE_MS)
        self.later = intake.post(post([late], late.watch(FILM, 2)), CLOSE_MS + 1)
        self.report = books.report()
        ledger.close()
        intake.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Path:
    shutil.copytree(world.report, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_report_verifies_with_the_public_key_alone(world: World) -> None:
    verdict = verify(world.report, KEYS)
    assert verdict.ok, verdict.sentence
    assert verdict.statement is not None
    assert verdict.statement.viewed_ms == 60 * 60_000
    rotated = [Identity(b"\x55" * 32).key, *KEYS]
    assert verify(world.report, rotated).ok


def test_another_origins_key_vouches_for_nothing(world: World) -> None:
    verdict = verify(world.report, [Identity(b"\x55" * 32).key])
    assert (verdict.ok, verdict.file) == (False, HEAD)
    assert not verify(world.report, []).ok


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_fails_after_any_byte_of_any_file_changes(copy: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(copy.iterdir())))
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1)) if good else 0
    bad = bytearray(good or b"\0")
    bad[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bad)
    verdict = verify(copy, KEYS)
    path.write_bytes(good)
    assert not verdict.ok
    assert verdict.file == path.name
    assert verify(copy, KEYS).ok


@pytest.mark.parametrize("change", ["longer", "shorter", "gone", "linked"])
def test_it_fails_where_a_file_is_longer_shorter_gone_or_a_link(copy: Path, change: str) -> None:
    for path in sorted(copy.iterdir()):
        good = path.read_bytes()
        if change == "linked":
            path.rename(copy.parent / path.name)
            path.symlink_to(copy.parent / path.name)
        elif change == "gone":
            path.unlink()
        else:
            path.write_bytes(good + b"\n" if change == "longer" else good[:-1])
        if change != "shorter" or good:
            verdict = verify(copy, KEYS)
            assert (verdict.ok, verdict.file) == (False, path.name)
        path.unlink(missing_ok=True)
        path.write_bytes(good)
    assert verify(copy, KEYS).ok


def test_it_fails_where_a_file_was_added_or_the_folder_is_none(copy: Path, tmp_path: Path) -> None:
    (copy / "notes.txt").write_text("trust me")
    assert verify(copy, KEYS).file == "notes.txt"
    assert verify(tmp_path / "nowhere", KEYS).file == HEAD


@pytest.mark.parametrize("name", ["creators.csv", "report.json", "month.beancount", "platforms.csv"])
def test_it_names_the_line_that_was_changed(copy: Path, name: str) -> None:
    lines = (copy / name).read_text().splitlines(keepends=True)
    changed = next(i for i, line in enumerate(lines) if i and any(c in "123456789" for c in line))
    lines[changed] = "".join("0" if c in "123456789" else c for c in lines[changed])
    (copy / name).write_text("".join(lines))
    verdict = verify(copy, KEYS)
    assert (verdict.ok, verdict.file, verdict.line) == (False, name, changed + 1)


def resigned(world: World, statement: Statement, lines: list[Line]) -> dict[str, bytes]:
    """Write a report that its own origin signed, whatever it says."""
    parts = Report(
        statement, lines, (world.report / "intake.bin").read_bytes(),
        (world.report / "tickets.bin").read_bytes(),
    )  # fmt: skip
    return report_files(parts, SETTLEMENT)


def placed(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def opened(world: World) -> tuple[Statement, list[Line]]:
    head = open_head((world.report / HEAD).read_bytes(), KEYS)
    return head.statement, unpack_lines((world.report / LEAVES).read_bytes())


def test_a_cent_moved_between_payees_is_found_though_the_origin_signed_it(
    world: World, tmp_path: Path
) -> None:
    statement, lines = opened(world)
    lines[0] = replace(lines[0], share_cents=lines[0].share_cents - 1, paid_cents=lines[0].paid_cents - 1)
    lines[1] = replace(lines[1], share_cents=lines[1].share_cents + 1, paid_cents=lines[1].paid_cents + 1)
    statement = replace(statement, leaves_root=lines_root(lines))
    verdict = verify(placed(tmp_path / "r", resigned(world, statement, lines)), KEYS)
    assert (verdict.ok, verdict.file, verdict.line) == (False, LEAVES, 1)
    assert "ann is due" in verdict.sentence


@pytest.mark.parametrize(
    "field",
    [
        "revenue_cents", "booked_costs_cents", "relay_pay_cents", "reserve_cents", "deficit_cents",
        "brought_cents", "pool_cents", "paid_cents", "held_cents", "carried_cents", "capped_cents",
        "viewed_ms", "leaves", "log_size",
    ],
)  # fmt: skip
def test_no_total_can_be_off_by_one(world: World, tmp_path: Path, field: str) -> None:
    statement, lines = opened(world)
    value: int = getattr(statement, field)
    statement = replace(statement, **{field: value + 1})
    assert not verify(placed(tmp_path / "r", resigned(world, statement, lines)), KEYS).ok


def test_a_table_that_contradicts_the_statement_is_found_though_it_was_signed(
    world: World, tmp_path: Path
) -> None:
    statement, lines = opened(world)
    files = resigned(world, statement, lines)
    files["creators.csv"] = files["creators.csv"].replace(b"ann", b"eve")
    hashes = [
        FileHash(name, len(data), sha256(data).digest()) for name, data in files.items() if name != HEAD
    ]
    files[HEAD] = seal_head(Head(1, statement, hashes), SETTLEMENT)
    verdict = verify(placed(tmp_path / "r", files), KEYS)
    assert (verdict.ok, verdict.file, verdict.line) == (False, "creators.csv", 2)


def test_leaves_that_do_not_read_are_a_verdict_not_a_crash(world: World, tmp_path: Path) -> None:
    statement, lines = opened(world)
    files = resigned(world, statement, lines)
    files[LEAVES] = pack_lines(lines)[:-1] + b"\xc1"
    hashes = [
        FileHash(name, len(data), sha256(data).digest()) for name, data in files.items() if name != HEAD
    ]
    files[HEAD] = seal_head(Head(1, statement, hashes), SETTLEMENT)
    assert verify(placed(tmp_path / "r", files), KEYS).file == LEAVES


def test_kept_acks_fit_the_log_that_was_settled(world: World) -> None:
    verdict = verify(world.report, KEYS, acks=[*world.acks, world.later], intake_keys=[INTAKE.key])
    assert verdict.ok, verdict.sentence
    assert (verdict.acks, verdict.later_acks) == (6, 1)


def test_an_ack_that_is_no_ack_of_this_origin_is_refused(world: World) -> None:
    verdict = verify(world.report, KEYS, acks=[*world.acks, b"\xc0"], intake_keys=[INTAKE.key])
    assert (verdict.ok, verdict.file, verdict.line) == (False, "receipts", 7)
    assert not verify(world.report, KEYS, acks=world.acks, intake_keys=[SETTLEMENT.key]).ok


def test_a_batch_left_out_of_the_log_is_found(world: World, tmp_path: Path) -> None:
    """The origin forgets the second of six entries and settles what is left."""
    intake = open_intake(tmp_path)
    for viewer in world.viewers[:3]:
        now_ms = FIRST_MS + 4 * DAY_MS
        if viewer is not world.viewers[0]:
            intake.post(post([viewer], viewer.pulses[:9]), now_ms)
        intake.batch(batch(RELAY, [viewer], viewer.pulses, [now_ms] * len(viewer.pulses)), now_ms + 1)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.book_revenue(50_001, FIRST_MS, b"1")
    books = closing(tmp_path, ledger, SHELF)
    books.settle(MONTH, now_ms=CLOSE_MS)
    report = books.report()
    assert verify(report, KEYS).ok
    verdict = verify(report, KEYS, acks=world.acks[-2:-1], intake_keys=[INTAKE.key])
    assert (verdict.ok, verdict.file) == (False, "intake.bin")
    ledger.close()


@pytest.mark.parametrize("kept", [0, 5])
def test_acked_pulses_missing_from_the_settlement_are_found(world: World, tmp_path: Path, kept: int) -> None:
    statement, lines = opened(world)
    stored = {viewer.tid: 21 for viewer in world.viewers[1:3]}
    if kept:
        stored[world.viewers[0].tid] = kept
    tickets = pack_tickets(stored)
    statement = replace(statement, tickets_hash=sha256(tickets).digest())
    parts = Report(statement, lines, (world.report / "intake.bin").read_bytes(), tickets)
    report = placed(tmp_path / "r", report_files(parts, SETTLEMENT))
    assert verify(report, KEYS).ok
    verdict = verify(report, KEYS, acks=world.acks, intake_keys=[INTAKE.key])
    assert (verdict.ok, verdict.file) == (False, "tickets.bin")
    assert f"{kept} are stored" in verdict.sentence


def test_a_payee_sees_its_own_lines_and_a_stranger_is_refused(world: World) -> None:
    verdict = verify(world.report, KEYS, payee="bob")
    assert [(line.payee, line.platform) for line in verdict.payee_lines] == [("bob", PUBLISHER.key)]
    assert sum(line.paid_cents for line in verdict.payee_lines) == 14_250
    assert "eve is no payee in 2026-11" in verify(world.report, KEYS, payee="eve").sentence


def test_a_payees_proofs_lead_to_the_signed_root(world: World) -> None:
    verdict = verify(world.report, KEYS, payee="bob")
    assert verdict.statement is not None
    [line], [place], [proof] = verdict.payee_lines, verdict.payee_places, verdict.payee_proofs
    statement = verdict.statement
    leaf = leaf_hash(encode(line))
    assert verify_inclusion(leaf, place, statement.leaves, proof, statement.leaves_root)
    more = leaf_hash(encode(replace(line, paid_cents=line.paid_cents + 1)))
    assert not verify_inclusion(more, place, statement.leaves, proof, statement.leaves_root)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two months of one origin, the later one's report."""
    folder = tmp_path_factory.mktemp("second")
    World(folder)
    intake, ledger = open_intake(folder), Ledger(folder / "ledger.db")
    viewer = Viewer(7, FIRST_DAY + 31)
    intake.post(post([viewer], viewer.watch(FILM, 5)), FIRST_MS + 32 * DAY_MS)
    close_ms = FIRST_MS + 61 * DAY_MS + 300_000
    ledger.book_revenue(60_000, close_ms - DAY_MS, b"2")
    books = closing(folder, ledger, SHELF)
    books.settle("2026-12", now_ms=close_ms)
    found = books.report("2026-12")
    ledger.close()
    intake.close()
    return found


def test_a_month_goes_on_from_the_one_before(second: Path, tmp_path: Path, world: World) -> None:
    verdict = verify(second, KEYS)
    assert (verdict.ok, verdict.follows) == (True, MONTH), verdict.sentence
    alone = tmp_path / "alone" / "2026-12"
    shutil.copytree(second, alone)
    assert (verify(alone, KEYS).ok, verify(alone, KEYS).follows) == (True, "")
    shutil.copytree(world.report, alone.parent / MONTH)  # the same months of another run: not its own past
    if (world.report / HEAD).read_bytes() != (second.parent / MONTH / HEAD).read_bytes():
        assert not verify(alone, KEYS).ok


@pytest.mark.parametrize(
    "change",
    [
        {"size": 5}, {"root": bytes(32)}, {"proof": []}, {"proof": [bytes(32)]}, {"size": 99},
        {"month": ""}, {"month": "2026-12"},
    ],
)  # fmt: skip
def test_a_log_that_does_not_go_on_is_found_though_it_was_signed(
    second: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    grown = decode(Consistency, (second / CONSISTENCY).read_bytes())
    files = {path.name: path.read_bytes() for path in second.iterdir()}
    files[CONSISTENCY] = encode(replace(grown, **change))
    signed_again(files)
    verdict = verify(placed(tmp_path / "r", files), KEYS)
    assert (verdict.ok, verdict.file) == (False, CONSISTENCY)


def test_a_checkpoint_of_another_log_or_signer_is_found(world: World, tmp_path: Path) -> None:
    head = open_head((world.report / HEAD).read_bytes(), KEYS).statement
    stranger = Identity(b"\x55" * 32)
    for number, (size, signer) in enumerate(((head.log_size + 1, SETTLEMENT), (head.log_size, stranger))):
        name = log_name(signer.key)
        files = {path.name: path.read_bytes() for path in world.report.iterdir()}
        files[CHECKPOINT] = seal(Checkpoint(name, size, head.log_root, head.as_of_ms), name, signer)
        signed_again(files)
        verdict = verify(placed(tmp_path / str(number), files), KEYS)
        assert (verdict.ok, verdict.file) == (False, CHECKPOINT)


def signed_again(files: dict[str, bytes]) -> None:
    """Let the origin itself sign what the files say now."""
    statement = open_head(files.pop(HEAD), KEYS).statement
    hashes = [FileHash(name, len(data), sha256(data).digest()) for name, data in files.items()]
    files[HEAD] = seal_head(Head(1, statement, hashes), SETTLEMENT)


def test_receipts_are_one_ack_or_an_array_of_them(world: World, tmp_path: Path) -> None:
    path = tmp_path / "acks"
    for data, expected in (
        (world.acks[0], world.acks[:1]),
        (encode(world.acks[:1]), world.acks[:1]),
        (encode(world.acks[:2]), world.acks[:2]),
        (encode(world.acks), world.acks),
    ):
        path.write_bytes(data)
        assert read_receipts(path) == expected
    for bad in (b"", b"\xc1", b"\x92\xc0\xc0", encode([1, 2, 3])):
        path.write_bytes(bad)
        with pytest.raises(RemoteError, match="holds no acks"):
            read_receipts(path)
    with pytest.raises(RemoteError, match="cannot be read"):
        read_receipts(tmp_path / "nothing")


def test_the_acks_of_these_tests_are_real(world: World) -> None:
    assert [read(ack).log_size for ack in world.acks] == [1, 2, 3, 4, 5, 6]
    assert read(world.later).at_ms == CLOSE_MS + 1
    assert world.viewers[0].day == FIRST_DAY + 2
