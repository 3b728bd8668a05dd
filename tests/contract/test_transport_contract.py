"""What every adapter of the transport port must do, as one suite. A new adapter adds a world of its own to `world`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest
from tests.sim_adapters import SimTransportWorld, driver
from tests.transport_world import PATIENT, WAIT_S, Answers, Scripted, answering, asking, begin, in_loop

from jadevectordb.adapters.framed_server import FramedServer
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import Asked, Count, Counted, Found, Get, Items, Ping, Pong, Search, SnapshotRead
from jadevectordb.ports.transport import Answerer, Transport

ASKED = Asked(database="d1", shards=(0, 3), map_version=9, at_least=((0, 12), (3, 0)), wait_s=0.25)


class World(Protocol):
    transport: Transport

    def serve(self, answerer: Answerer, address: str = "") -> str:
        """A node that answers, there or anywhere; its address."""
        ...

    def stop(self, address: str) -> None:
        """It goes away, connections and all."""
        ...

    def nobody(self) -> str:
        """An address where no node is."""
        ...


class FramedWorld:
    """Real connections over loopback."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._servers: dict[str, FramedServer] = {}
        self.transport = stack.enter_context(asking(patience=PATIENT))

    def serve(self, answerer: Answerer, address: str = "") -> str:
        port = int(address.rpartition(":")[2]) if address else 0
        server = self._stack.enter_context(answering(answerer, port=port, patience=PATIENT))
        self._servers[server.address] = server
        return server.address

    def stop(self, address: str) -> None:
        self._servers[address].close()

    def nobody(self) -> str:
        address = self.serve(Scripted())
        self.stop(address)
        return address


@pytest.fixture(params=["framed", "sim"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as stack:
        yield FramedWorld(stack) if request.param == "framed" else SimTransportWorld(stack.enter_context(driver()))


def count(number: int) -> Count:
    return Count(asked=Asked(database=str(number), shards=(0,)))


def test_an_answer_is_what_was_answered(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    address = world.serve(scripted)
    search = Search(
        asked=ASKED,
        query=bytes(range(256)) * 12,
        options={"k": 10, "recall": 0.95, "filter": {"a": ["x", None, True, -1.5]}},
        include=("metadata", "vector"),
        explain=True,
    )
    found = Found(
        ids=["a", "ü\U0001f600"],
        scores=[0.5, float("-inf")],
        versions=[1, 2**62],
        metadata=[b"{}", b'{"x":1}'],
        vectors=b"\x00\xff" * 100,
        watermarks=[(0, 12), (3, 7)],
        explanation=b"{}",
        search_us=12.5,
    )
    begin(world.transport, address, search, answers)
    call, reply = scripted.next()
    assert call == search
    reply(found, None)
    assert answers.wait(1) == [("", found, None)]


def test_bytes_are_answered_as_bytes(world: World) -> None:
    scripted = Scripted()
    payload = bytes(range(256)) * 8192  # 2 MB, many reads
    scripted.at_once = lambda call: memoryview(payload)[call.offset : call.offset + call.length]
    address = world.serve(scripted)
    for offset, length in [(0, 0), (3, 1), (0, len(payload)), (77, 1 << 20)]:
        read = SnapshotRead(snapshot="s", path="p/q", offset=offset, length=length)
        answer = world.transport.call(address, read, WAIT_S)
        assert type(answer) is bytes and answer == payload[offset : offset + length]


def test_an_error_keeps_its_code_its_sentence_and_its_details(world: World) -> None:
    scripted = Scripted()
    address = world.serve(scripted)
    answers = Answers()
    begin(world.transport, address, count(1), answers)
    _, reply = scripted.next()
    reply(None, JadeError(ErrorCode.STALE_MAP, "shard 3 is not here", details={"shards": [3], "map_version": 10}))
    error = answers.error()
    assert (error.code, error.message) == (ErrorCode.STALE_MAP, "shard 3 is not here")
    assert error.details == {"shards": [3], "map_version": 10}
    with pytest.raises(JadeError) as raised:
        scripted.at_once = lambda call: (_ for _ in ()).throw(JadeError(ErrorCode.CORRUPT, "rotten"))
        world.transport.call(address, count(2), WAIT_S)
    assert raised.value.code is ErrorCode.CORRUPT


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_of_the_answerer_is_not_told_in_detail_and_harms_no_other_call(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    address = world.serve(scripted)
    begin(world.transport, address, count(1), answers, 1)
    _, first = scripted.next()
    begin(world.transport, address, count(2), answers, 2)
    scripted.next()[1](None, ValueError("the secret of this process"))
    error = answers.error()
    assert error.code is ErrorCode.INTERNAL_ERROR and "secret" not in error.message
    scripted.at_once = lambda call: 1 / 0
    with pytest.raises(JadeError) as raised:
        world.transport.call(address, count(3), WAIT_S)
    assert raised.value.code is ErrorCode.INTERNAL_ERROR
    first(Counted(count=1), None)
    assert answers.wait(2)[1] == (1, Counted(count=1), None)


def test_what_nobody_answers_times_out_and_is_given_up_there(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    address = world.serve(scripted)
    begin(world.transport, address, count(1), answers, 1)
    scripted.next()
    begin(world.transport, address, count(2), answers, 2, timeout_s=0.05)
    _, late = scripted.next()
    error = answers.error()
    assert error.code is ErrorCode.TIMEOUT and error.retryable and error.details["sent"] is True
    assert scripted.wait_given_up(1) == [count(2)]
    late(Counted(count=2), None)  # goes nowhere
    scripted.at_once = scripted.pong
    assert world.transport.call(address, Ping(), WAIT_S) == scripted.pong(Ping())
    assert len(answers.all) == 1


def test_a_cancelled_call_is_never_answered_and_given_up_there(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    address = world.serve(scripted)
    pending = begin(world.transport, address, count(1), answers)
    _, reply = scripted.next()
    in_loop(world.transport, pending.cancel)
    assert scripted.wait_given_up(1) == [count(1)]
    in_loop(world.transport, pending.cancel)
    reply(Counted(count=1), None)
    scripted.at_once = scripted.pong
    world.transport.call(address, Ping(), WAIT_S)
    assert not answers.all and len(scripted.given_up) == 1


def test_cancel_before_the_connection_is_made(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    scripted.at_once = lambda call: Counted(count=1)
    address = world.serve(scripted)

    def begin_and_cancel() -> None:
        world.transport.begin(address, count(1), WAIT_S, answers.into(1)).cancel()
        world.transport.begin(address, count(2), WAIT_S, answers.into(2))

    in_loop(world.transport, begin_and_cancel)
    answers.wait(1)
    assert [name for name, _, _ in answers.all] == [2]


def test_cancel_after_the_answer_changes_nothing(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    address = world.serve(scripted)
    pending = begin(world.transport, address, count(1), answers)
    scripted.next()[1](Counted(count=1), None)
    answers.wait(1)
    in_loop(world.transport, pending.cancel)
    scripted.at_once = scripted.pong
    world.transport.call(address, Ping(), WAIT_S)
    assert len(answers.all) == 1 and not scripted.given_up


def test_where_nobody_is_nothing_was_sent(world: World) -> None:
    answers = Answers()
    begin(world.transport, world.nobody(), count(1), answers)
    error = answers.error()
    assert error.code is ErrorCode.UNAVAILABLE and error.retryable and error.details["sent"] is False


def test_an_error_known_at_once_still_comes_later(world: World) -> None:
    answers = Answers()
    address = world.nobody()
    begin(world.transport, address, count(1), answers)
    answers.wait(1)  # it is known by now that nobody is there

    def begin_and_look() -> int:
        world.transport.begin(address, count(2), WAIT_S, answers.into(2))
        cancelled = world.transport.begin(address, count(3), WAIT_S, answers.into(3))
        cancelled.cancel()
        return len(answers.all)

    assert in_loop(world.transport, begin_and_look) == 1
    answers.wait(2)
    in_loop(world.transport, lambda: None)
    assert [name for name, _, _ in answers.all] == ["", 2]


def test_a_node_that_goes_away_may_have_got_what_was_sent(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    address = world.serve(scripted)
    for number in range(3):
        begin(world.transport, address, count(number), answers, number)
    for _ in range(3):
        scripted.next()
    world.stop(address)
    assert [name for name, _, _ in answers.wait(3)] == [0, 1, 2]
    for _, _, error in answers.all:
        assert isinstance(error, JadeError)
        assert error.code is ErrorCode.UNAVAILABLE and error.details["sent"] is True
    assert len(scripted.wait_given_up(3)) == 3  # whoever asked can't hear it any more


def test_many_calls_under_way_find_their_own_answers(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    addresses = [world.serve(scripted) for _ in range(3)]
    numbers = range(600)

    def begin_all() -> None:
        for number in numbers:
            world.transport.begin(addresses[number % 3], count(number), WAIT_S, answers.into(number))

    in_loop(world.transport, begin_all)
    calls = [scripted.next() for _ in numbers]
    answered = [threading.Thread(target=reply_all, args=(calls[part::4],)) for part in range(4)]
    for thread in answered:
        thread.start()
    for thread in answered:
        thread.join()
    answers.wait(len(numbers))
    assert sorted((name, answer.count, error) for name, answer, error in answers.all) == [  # type: ignore[type-var]
        (number, number, None) for number in numbers
    ]
    assert len(answers.threads) == 1


def reply_all(calls: list[tuple[Count, object]]) -> None:
    for call, reply in reversed(calls):
        reply(Counted(count=int(call.asked.database)), None)  # type: ignore[operator]


def test_answers_given_in_order_come_in_order(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    scripted.at_once = lambda call: Counted(count=int(call.asked.database))
    address = world.serve(scripted)

    def begin_all() -> None:
        for number in range(200):
            world.transport.begin(address, count(number), WAIT_S, answers.into(number))

    in_loop(world.transport, begin_all)
    assert [name for name, _, _ in answers.wait(200)] == list(range(200))


def test_large_and_small_answers_keep_their_order(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    scripted.at_once = lambda call: bytes([call.offset]) * call.length
    address = world.serve(scripted)
    lengths = [(10, 200_000, 70_000, 0, 3 << 20)[number % 5] for number in range(50)]

    def begin_all() -> None:
        for number, length in enumerate(lengths):
            read = SnapshotRead(snapshot="s", path="p", offset=number, length=length)
            world.transport.begin(address, read, WAIT_S, answers.into(number))

    in_loop(world.transport, begin_all)
    assert [(name, answer) for name, answer, _ in answers.wait(len(lengths))] == [
        (number, bytes([number]) * length) for number, length in enumerate(lengths)
    ]


def test_a_callback_may_begin_the_next_call(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    scripted.at_once = lambda call: Counted(count=int(call.asked.database))
    address = world.serve(scripted)

    def next_one(answer: object, error: Exception | None) -> None:
        assert isinstance(answer, Counted) and error is None
        if answer.count < 50:
            world.transport.begin(address, count(answer.count + 1), WAIT_S, next_one)
        else:
            answers.into("end")(answer, None)

    in_loop(world.transport, lambda: world.transport.begin(address, count(0), WAIT_S, next_one))
    assert answers.wait(1)[0][1] == Counted(count=50)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_of_a_callback_harms_no_other_call(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    scripted.at_once = scripted.pong
    address = world.serve(scripted)

    def broken(answer: object, error: Exception | None) -> None:
        raise ValueError("a defect")

    in_loop(world.transport, lambda: world.transport.begin(address, Ping(), WAIT_S, broken))
    begin(world.transport, address, Ping(), answers)
    assert answers.wait(1)[0][2] is None


def test_calls_from_many_threads(world: World) -> None:
    scripted = Scripted()
    scripted.at_once = lambda call: Items(ids=list(call.ids), versions=[1], metadata=[b"{}"])
    address = world.serve(scripted)
    wrong: list[object] = []

    def ask(thread: int) -> None:
        for number in range(50):
            name = f"{thread}-{number}"
            answer = world.transport.call(address, Get(asked=ASKED, ids=(name,)), WAIT_S)
            if answer.ids != [name]:
                wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_call_from_a_thread_raises_its_error(world: World) -> None:
    scripted = Scripted()
    with pytest.raises(JadeError) as raised:
        world.transport.call(world.nobody(), Ping(), WAIT_S)
    assert raised.value.code is ErrorCode.UNAVAILABLE
    with pytest.raises(JadeError) as raised:
        world.transport.call(world.serve(scripted), Ping(), 0.05)
    assert raised.value.code is ErrorCode.TIMEOUT


def test_after_is_never_early_and_can_be_cancelled(world: World) -> None:
    transport, answers = world.transport, Answers()
    waits = [0.0, 0.0013, 0.0104, 0.02]

    def begin_all() -> None:
        for wait_s in waits:
            due_s = transport.now_s() + wait_s
            transport.after(wait_s, lambda due_s=due_s: answers.into(transport.now_s() >= due_s)(None, None))  # type: ignore[misc]
        transport.after(0.001, lambda: answers.into("cancelled")(None, None)).cancel()

    in_loop(transport, begin_all)
    assert [name for name, _, _ in answers.wait(len(waits))] == [True] * len(waits)
    assert len(answers.threads) == 1


def test_run_keeps_the_order(world: World) -> None:
    answers = Answers()
    for number in range(100):
        world.transport.run(lambda number=number: answers.into(number)(None, None))  # type: ignore[misc]
    assert [name for name, _, _ in answers.wait(100)] == list(range(100))


def test_closing_fails_what_is_under_way(world: World) -> None:
    scripted, answers = Scripted(), Answers()
    address = world.serve(scripted)
    begin(world.transport, address, count(1), answers, 1)
    scripted.next()
    raised: list[JadeError] = []

    def ask() -> None:
        try:
            world.transport.call(address, count(2), WAIT_S)
        except JadeError as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    scripted.next()
    world.transport.close()
    thread.join()
    assert answers.error().code is ErrorCode.CLOSED and raised[0].code is ErrorCode.CLOSED
    assert len(scripted.wait_given_up(2)) == 2
    world.transport.close()
    with pytest.raises(JadeError) as closed:
        world.transport.call(address, Ping(), WAIT_S)
    assert closed.value.code is ErrorCode.CLOSED


def test_a_node_that_comes_back_is_asked_again(world: World) -> None:
    scripted = Scripted("before")
    scripted.at_once = scripted.pong
    address, other = world.serve(scripted), world.serve(scripted)
    assert world.transport.call(address, Ping(), WAIT_S).node == "before"
    world.stop(address)
    with pytest.raises(JadeError):
        world.transport.call(address, Ping(), WAIT_S)
    assert world.transport.call(other, Ping(), WAIT_S).node == "before"
    scripted = Scripted("after")
    scripted.at_once = scripted.pong
    world.serve(scripted, address)
    assert ask_until_answered(world.transport, address) == Pong(node="after", incarnation="1", map_version=7)


def ask_until_answered(transport: Transport, address: str) -> object:
    """Calls fail at once while no connection is there, so this asks again and again."""
    until_s = transport.now_s() + WAIT_S
    while True:
        try:
            return transport.call(address, Ping(), WAIT_S)
        except JadeError as error:
            assert error.code is ErrorCode.UNAVAILABLE and transport.now_s() < until_s
        pause = threading.Event()
        in_loop(transport, lambda pause=pause: transport.after(0.01, pause.set))  # type: ignore[misc]
        assert pause.wait(WAIT_S)
