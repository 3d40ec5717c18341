"""Sockets that have their turn while the loop selects, beside whatever asyncio does itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Generator

import pytest

from farcast.node.http.readiness import Readiness
from farcast.node.http.turnloop import READ, TurnLoop, run

Runner = Callable[..., object]


@pytest.fixture
def pair() -> Generator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


@pytest.mark.parametrize("runner", [run, asyncio.run], ids=["its own loop", "any loop"])
def test_a_socket_has_its_turn_and_none_after_it_is_forgotten(
    runner: Runner, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    seen: list[bytes] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ready = Readiness(loop)
        began = ready.now
        came = asyncio.Event()

        def turn(events: int) -> None:
            if events & READ:
                seen.append(near.recv(100))
                came.set()

        ready.watch(near.fileno(), turn)
        await asyncio.sleep(0.01)
        far.send(b"one")
        await asyncio.wait_for(came.wait(), 5)
        assert ready.now > began
        ready.forget(near.fileno())
        ready.forget(near.fileno())
        far.send(b"two")
        await asyncio.sleep(0.01)
        # the same descriptor waits as asyncio's own afterwards
        assert await asyncio.wait_for(loop.sock_recv(near, 100), 5) == b"two"
        ready.close()
        ready.close()

    runner(main())
    assert seen == [b"one"]


@pytest.mark.parametrize("runner", [run, asyncio.run], ids=["its own loop", "any loop"])
def test_another_turn_is_one_turn_however_often_it_is_asked_for_and_a_failed_one_takes_none_along(
    runner: Runner, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    turns: list[str] = []
    told: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        ready = Readiness(loop)

        def fails(events: int) -> None:
            if not events:
                turns.append("near")
                raise KeyError("near")

        ready.watch(near.fileno(), fails)
        ready.watch(far.fileno(), lambda events: None if events else turns.append("far"))
        for fd in (near.fileno(), far.fileno(), near.fileno(), near.fileno()):
            ready.again(fd)
        await asyncio.sleep(0.01)
        for sock in pair:
            ready.forget(sock.fileno())
        ready.close()

    runner(main())
    assert turns == ["near", "far"]
    assert told == ["'near'"]


def test_asyncio_hears_of_its_own_sockets_timers_and_threads_beside_them(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        one, two = Readiness(loop), Readiness(loop)
        turns: list[int] = []
        two.watch(far.fileno(), turns.append)
        reader, writer = await asyncio.open_connection(sock=near)
        writer.write(b"to a turn")
        async with asyncio.timeout(5):
            while not any(events & READ for events in turns):  # noqa: ASYNC110 - turns are no event
                await asyncio.sleep(0.001)
            far.send(b"to asyncio")
            assert await reader.read(100) == b"to asyncio"
            assert await asyncio.to_thread(lambda: 7) == 7
        assert abs(one.now - two.now) < 0.1
        one.close()
        two.forget(far.fileno())
        two.close()
        writer.close()

    run(main())


def test_a_turn_that_fails_is_told_and_the_loop_goes_on(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    told: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        ready = Readiness(loop)
        fault = ValueError("a bug")

        def turn(events: int) -> None:
            if events & READ:
                raise fault

        ready.watch(near.fileno(), turn)
        far.send(b"x")
        await asyncio.sleep(0.01)
        ready.forget(near.fileno())
        ready.close()
        assert told == [fault]

    run(main())


@pytest.mark.parametrize("runner", [run, asyncio.run], ids=["its own loop", "any loop"])
def test_who_hears_of_turns_and_fails_is_told_of_and_takes_no_turn_along(
    runner: Runner, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    told: list[object] = []
    turns: list[int] = []
    fault = ValueError("a bug")

    def begun(_: float) -> None:
        raise fault

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        ready = Readiness(loop, begun)
        ready.watch(near.fileno(), turns.append)
        far.send(b"x")
        await asyncio.sleep(0.01)
        assert any(events & READ for events in turns)
        ready.again(near.fileno())
        await asyncio.sleep(0.01)
        assert turns[-1] == 0
        ready.forget(near.fileno())
        ready.close()

    runner(main())
    assert set(told) == {fault}


def test_others_are_asked_for_after_a_turn_that_others_had(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    order: list[int] = []

    async def main() -> None:
        ready = Readiness(asyncio.get_running_loop())

        def turn(events: int) -> None:
            order.append(events & READ)
            if len(order) < 3:
                ready.again(near.fileno())

        far.send(b"x")
        ready.watch(near.fileno(), turn)
        await asyncio.sleep(0.02)
        ready.forget(near.fileno())
        ready.again(near.fileno())  # nobody's any more
        await asyncio.sleep(0.01)
        ready.close()

    run(main())
    assert len(order) == 3
    assert order[0] == READ & order[0] != 0
    assert order[1:] == [0, 0]
