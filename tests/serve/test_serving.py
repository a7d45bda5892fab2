"""One server, well treated: frames, order, errors, cancelling, back-pressure, the queue."""

from __future__ import annotations

import io
import time

import pytest
from PIL import Image
from servers import BLACK, SIDE, Server, assert_all_there, eventually, request
from sfwire import messages as m
from sfwire.client import Client
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import Refused
from sfwire.request import Ended, Picture, Request


def test_every_frame_arrives_once_in_order_with_the_right_bytes(client: Client) -> None:
    wanted = request(33)
    with client.submit(wanted) as stream:
        assert_all_there(list(stream), wanted)
    assert stream.done is not None
    assert (stream.done.outcome, stream.done.frames, stream.done.seed) == ("finished", 31, 5)


def test_positions_that_hold_a_keyframe_are_not_sent(client: Client) -> None:
    wanted = Request(((3, BLACK), (0, BLACK), (9, BLACK)), SIDE, SIDE, 12)
    with client.submit(wanted) as stream:
        assert [p.index for p in stream] == [1, 2, 4, 5, 6, 7, 8, 10, 11]


def test_a_png_holds_the_same_picture(client: Client) -> None:
    import attrs

    plain = request(4)
    raw = [bytes(p.data) for p in client.submit(plain)]
    png = list(client.submit(attrs.evolve(plain, encoding="png")))
    assert [Image.open(io.BytesIO(p.data)).convert("RGB").tobytes() for p in png] == raw
    assert all(p.encoding == "png" for p in png)


def test_two_requests_of_one_client_both_come_whole(client: Client) -> None:
    a, b = request(9, seed=1), request(9, seed=2)
    with client.submit(a) as first, client.submit(b) as second:
        assert_all_there(list(second), b)
        assert_all_there(list(first), a)


def test_a_waiting_request_hears_its_position_move(server: Server, client: Client) -> None:
    first, second, last = (client.submit(request(30)) for _ in range(3))  # nobody reads, so the first stands still
    events = last.events()
    positions = [next(e.position for e in events if isinstance(e, m.Accepted))]
    first.close()
    positions += [next(e.position for e in events if isinstance(e, m.Accepted))]
    assert positions == [2, 1]
    for stream in (second, last):
        stream.close()


@pytest.mark.parametrize(
    ("fault", "code"),
    [("raise", ErrorCode.INTERNAL), ("refuse", ErrorCode.NOT_FINITE), ("memory", ErrorCode.OUT_OF_MEMORY)],
)
def test_an_engine_that_fails_ends_its_request_and_the_worker_lives_on(
    server: Server, client: Client, fault: str, code: ErrorCode
) -> None:
    before = server.worker().pid
    with pytest.raises(RequestError) as failed:
        list(client.submit(request(fault=fault)))
    assert failed.value.code is code
    assert "\n" not in str(failed.value)
    assert_all_there(list(client.submit(request(5))), request(5))
    assert server.worker().pid == before


def test_a_worker_whose_device_is_lost_says_so_and_makes_room_for_another(server: Server, client: Client) -> None:
    before = server.worker().pid
    with pytest.raises(RequestError) as failed:
        list(client.submit(request(fault="device")))
    assert failed.value.code is ErrorCode.INTERNAL
    assert_all_there(list(client.submit(request(5))), request(5))
    assert server.worker().pid != before


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"engine": "nonsense"}, "engine"),
        ({"engine": "missing"}, "engine"),
        ({"params": {"speed": 1}}, "params.speed"),
        ({"params": {"delay_ms": -1.0}}, "params.delay_ms"),
        ({"params": {"fault": "explode"}}, "params.fault"),
        ({"params": {"fault_at": 1.5}}, "params.fault_at"),
        ({"keyframes": ((0, BLACK), (0, BLACK))}, "keyframes[1].at"),
        ({"keyframes": ((0, BLACK), (20, BLACK))}, "keyframes[1].at"),
    ],
    ids=lambda x: str(x)[:40] if isinstance(x, dict) else "",
)
def test_what_cannot_be_done_is_refused_with_its_field(client: Client, wrong: dict[str, object], field: str) -> None:
    import attrs

    with pytest.raises(RequestError) as refused:
        list(client.submit(attrs.evolve(request(), **wrong)))  # type: ignore[arg-type]
    assert refused.value.field == field
    assert len(str(refused.value)) > 20


def test_an_engine_that_lacks_files_says_which_and_how_to_get_them(client: Client) -> None:
    import attrs

    with pytest.raises(RequestError, match="sfserver fetch missing"):
        list(client.submit(attrs.evolve(request(), engine="missing")))


def test_what_the_protocol_does_not_allow_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(Refused):
        client.submit(request(num_frames=5000))
    with pytest.raises(Refused):
        client.submit(Request(((0, BLACK),), SIDE, SIDE, 3, prompt="x" * 5000))


def test_cancelling_ends_the_stream_and_frees_the_worker(server: Server, client: Client) -> None:
    with client.submit(request(500, delay_ms=1000.0)) as stream:  # eight minutes; test_cancelling.py counts the frames
        next(iter(stream))
        stream.cancel()
        rest = list(stream)
    assert stream.done is not None
    assert stream.done.outcome == "cancelled"
    assert len(rest) <= 7, "what had come already"
    eventually(lambda: not client.status().jobs)
    assert_all_there(list(client.submit(request(5))), request(5))


def test_leaving_the_with_block_cancels(client: Client) -> None:
    with client.submit(request(500, delay_ms=20.0)) as stream:
        next(iter(stream))
    eventually(lambda: not client.status().jobs)


def test_a_client_that_takes_nothing_stops_the_engine_and_loses_nothing(server: Server) -> None:
    wanted = request(200)
    with server.client(window=4) as client, client.submit(wanted) as stream:
        eventually(lambda: any(j.frames == 4 for j in client.status().jobs))
        time.sleep(0.5)
        assert [j.frames for j in client.status().jobs] == [4], "only what credit allows was made and sent"
        assert_all_there(list(stream), wanted)


def test_polling_never_blocks_and_ends_with_ended(client: Client) -> None:
    wanted = request(4, delay_ms=500.0)
    stream = client.submit(wanted)
    events: list[object] = []
    in_vain = 0
    while not stream.ended:
        came = stream.poll(4)
        events += came
        in_vain += not came
        time.sleep(0.005)
    assert_all_there([e for e in events if isinstance(e, Picture)], wanted)
    assert isinstance(events[-1], Ended)
    assert in_vain > 0, "one that waited would always come back with something"


def test_a_client_that_goes_away_gives_its_worker_back(server: Server, client: Client) -> None:
    with server.client() as other:
        stream = other.submit(request(500, delay_ms=20.0))
        next(iter(stream))
        assert client.status().jobs
    eventually(lambda: not client.status().jobs)


def test_a_client_that_says_bye_is_forgotten_at_once(server: Server, client: Client) -> None:
    before = client.status().clients
    for _ in range(40):  # more than the server would remember if they stayed
        with server.client() as other:
            other.wait_ready()
    eventually(lambda: client.status().clients == before)


def test_a_client_may_submit_more_requests_than_the_server_lets_wait(client: Client) -> None:
    wanted = [request(4, seed=seed) for seed in range(70)]
    streams = [client.submit(one) for one in wanted]
    for one, stream in zip(wanted, streams, strict=True):
        assert_all_there(list(stream), one)


def test_the_welcome_describes_each_engine_well_enough_to_draw_its_settings(client: Client) -> None:
    welcome = client.wait_ready()
    fake = next(e for e in welcome.engines if e.id == "fake")
    assert [(p.name, p.kind, p.default) for p in fake.parameters][1] == ("fault", "choice", "none")
    assert next(e for e in welcome.engines if e.id == "missing").missing
    assert welcome.default_engine == "fake"


def auto(num_frames: int, **params: m.Value) -> Request:
    return Request(((0, BLACK), (num_frames - 1, BLACK)), SIDE, SIDE, num_frames, seed=5, params=params)


def test_auto_is_chosen_by_the_server_for_the_clip_and_it_says_why(client: Client) -> None:
    wanted = auto(24)
    with client.submit(wanted) as stream:
        events = list(stream.events())
    told = [event.stage for event in events if isinstance(event, m.Progress) and event.stage.startswith("auto: ")]
    assert told == ["auto: Fake: for 24 frames"]
    assert_all_there([event for event in events if isinstance(event, Picture)], wanted)
    assert stream.done
    assert (stream.done.engine, stream.done.version) == ("fake", "1")


def test_who_chooses_is_told_of_the_prompts_and_of_what_was_set(client: Client) -> None:
    later = ((4, "a storm rises"),)
    wanted = Request(((0, BLACK),), SIDE, SIDE, 9, prompt="calm", prompts=later, params={"delay_ms": 0.0})
    told = [event.stage for event in client.submit(wanted).events() if isinstance(event, m.Progress)]
    assert "auto: Fake: for 9 frames, delay_ms set, 2 prompts" in told


def test_what_was_asked_for_counts_for_more_than_what_auto_would_set(client: Client) -> None:
    with pytest.raises(RequestError, match="try precision fp32"):
        list(client.submit(auto(24, fault="refuse", delay_ms=0.0)))


def test_auto_that_cannot_be_done_is_refused_as_by_name(client: Client) -> None:
    with pytest.raises(RequestError) as failed:
        list(client.submit(auto(9, nonsense=1)))
    assert (failed.value.code, failed.value.field) == (ErrorCode.BAD_VALUE, "params.nonsense")
