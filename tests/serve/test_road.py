"""The road out of a worker: every picture once, in order and with its own bytes, a bound on what waits, and its end."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from attrs import define, field
from fake_engines import picture
from PIL import Image
from sfwire import messages as m
from sfwire.codec import Buffer

from sfserver.engine.base import FOUND, Frame
from sfserver.serve.road import AHEAD, Cancelled, Road, as_png, encoders

SIDE = 16


@define
class Client:
    """What has left, in order; `limit` pictures are taken and no more until it is raised."""

    left: list[tuple[int, bytes] | str] = field(factory=list)
    limit: int = 10**9
    cancelled: bool = False
    changed: threading.Condition = field(factory=threading.Condition)

    def take(self, frame: Frame, buffer: Buffer) -> None:
        with self.changed:
            self.changed.wait_for(lambda: len(self.left) < self.limit or self.cancelled)
        if self.cancelled:
            raise Cancelled
        self.left.append((frame.index, bytes(buffer)))

    def hear(self, progress: m.Progress) -> None:
        self.left.append(progress.stage)

    def cancel(self) -> None:
        with self.changed:
            self.cancelled = True
            self.changed.notify_all()


class LastFirst(ThreadPoolExecutor):
    """Encoders that hold everything back until four are waiting, and finish the youngest first."""

    def __init__(self) -> None:
        super().__init__(1)
        self.held: list[tuple[Future, tuple]] = []

    def submit(self, fn, /, *args):  # type: ignore[no-untyped-def]
        self.held.append((Future(), (fn, *args)))
        mine = self.held[-1][0]
        if len(self.held) == 4:
            for future, (work, *rest) in reversed(self.held):
                future.set_result(work(*rest))
            self.held.clear()
        return mine


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with encoders() as pool:
        yield pool


def frames(count: int) -> list[Frame]:
    return [Frame(i, picture(1, i, SIDE, SIDE)) for i in range(count)]


def drive(
    client: Client, pool: ThreadPoolExecutor, made: Iterable[Frame], encoding: m.Encoding = "raw", ahead: int = 4
) -> None:
    """What an engine makes, one after the other; it may raise in the middle."""
    with Road(client.take, client.hear, encoding, pool, ahead) as road:
        for frame in made:
            road.put(frame)


def test_pictures_leave_once_in_order_and_with_their_own_bytes(pool: ThreadPoolExecutor) -> None:
    raw, png = Client(), Client()
    drive(raw, pool, frames(40))
    drive(png, pool, frames(40), "png")
    assert raw.left == [(f.index, f.image.tobytes()) for f in frames(40)]
    assert [index for index, _ in png.left] == list(range(40))
    for (_, data), frame in zip(png.left, frames(40), strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), frame.image)


def test_the_order_is_the_engine_s_whichever_picture_is_encoded_first() -> None:
    client = Client()
    drive(client, LastFirst(), frames(16), "png", ahead=8)
    assert [index for index, _ in client.left] == list(range(16))


def test_the_same_pictures_are_the_same_bytes_however_they_were_encoded(pool: ThreadPoolExecutor) -> None:
    one, other = Client(), Client()
    drive(one, pool, frames(12), "png")
    drive(other, LastFirst(), frames(12), "png", ahead=12)
    assert one.left == other.left == [(f.index, bytes(as_png(f.image))) for f in frames(12)]


@pytest.mark.parametrize(("ahead", "holds"), [(3, True), (10**6, False)], ids=["bounded", "the control"])
def test_a_client_that_takes_nothing_holds_the_engine_up_after_a_set_number(
    pool: ThreadPoolExecutor, ahead: int, holds: bool
) -> None:
    """The engine stands in the put after the last that fits: with the bound taken away it runs to its end."""
    client, count, begun, over = Client(limit=0), 50, [0], threading.Event()

    def engine() -> None:
        with Road(client.take, client.hear, "raw", pool, ahead) as road:
            for frame in frames(count):
                begun[0] += 1
                road.put(frame)
            over.set()

    thread = threading.Thread(target=engine, daemon=True)
    thread.start()
    while begun[0] < min(ahead + 1, count):
        time.sleep(0.001)
    if holds:
        for _ in range(20):  # as many chances to go on
            time.sleep(0.001)
            assert begun[0] == ahead + 1
    else:
        assert over.wait(200)
    with client.changed:
        client.limit = count
        client.changed.notify_all()
    thread.join(200)
    assert [index for index, _ in client.left] == list(range(count)), "a slow reader loses nothing"


def test_a_cancel_drops_what_is_on_the_road_and_frees_an_engine_that_waits(pool: ThreadPoolExecutor) -> None:
    client, asked = Client(limit=2), []

    def made() -> Iterator[Frame]:
        for frame in frames(50):
            if frame.index == 6:  # two have left, four are on the road: the next must wait
                threading.Thread(target=client.cancel).start()
            asked.append(frame.index)
            yield frame

    with pytest.raises(Cancelled):
        drive(client, pool, made(), "png")
    assert [index for index, _ in client.left] == [0, 1]
    assert asked == list(range(7))


def test_a_cancel_that_the_engine_s_thread_hears_first_drops_the_rest_as_well(pool: ThreadPoolExecutor) -> None:
    client = Client(limit=0)

    def made() -> Iterator[Frame]:
        yield from frames(1)
        client.cancel()
        raise Cancelled

    with pytest.raises(Cancelled):
        drive(client, pool, made())
    assert client.left == []


def test_what_was_made_before_an_engine_failed_leaves_before_the_failure_is_told(pool: ThreadPoolExecutor) -> None:
    client = Client()

    def made() -> Iterator[Frame]:
        yield from frames(5)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drive(client, pool, made(), "png", ahead=8)
    assert [index for index, _ in client.left] == list(range(5))


@pytest.mark.parametrize("count", [1, 9], ids=["when it ends", "when it puts another"])
def test_a_mistake_of_the_writing_thread_is_the_engine_s_to_raise(pool: ThreadPoolExecutor, count: int) -> None:
    class Broken(Client):
        def take(self, frame: Frame, buffer: Buffer) -> None:
            raise MemoryError

    with pytest.raises(MemoryError):
        drive(Broken(), pool, frames(count), ahead=2)


def test_word_keeps_its_place_and_of_words_in_a_row_the_last_counts_unless_one_is_worth_keeping(
    pool: ThreadPoolExecutor,
) -> None:
    client = Client(limit=0)
    with Road(client.take, client.hear, "raw", pool) as road:
        first, second = frames(2)
        road.put(first)
        for stage in ("one", "two", f"{FOUND}a pan", "three"):
            road.tell(m.Progress("r", stage, 0, 1))
        road.put(second)
        with client.changed:
            client.limit = 10
            client.changed.notify_all()
    assert [x if isinstance(x, str) else x[0] for x in client.left] == [0, f"{FOUND}a pan", "three", 1]


def test_two_blocks_of_a_wan_model_find_room_on_the_road() -> None:
    assert AHEAD >= 2 * 12
