"""`sfserver queue` against a real server: pausing costs no frame, and outlives the server."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers import assert_all_there, eventually, request, running
from sfwire import messages as m
from sfwire.errors import ErrorCode, RequestError
from sfwire.request import Picture

from sfserver.cli import USER_ERROR, main
from sfserver.serve.endpoint import operator_path


def test_a_paused_stream_goes_on_with_its_frames_and_what_is_taken_out_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as server, server.client(name="an editor") as client:
        monkeypatch.setenv("SFSERVER_CONNECTION_FILE", str(server.connection_file))
        assert main(["queue"]) == 0
        assert "nothing is waiting or running" in capsys.readouterr().out
        wanted = request(30, seed=3, delay_ms=5.0)
        stream, other = client.submit(wanted), client.submit(request(200, seed=4, delay_ms=50.0))
        pictures = [next(iter(stream))]
        assert main(["queue", "pause"]) == 0
        eventually(lambda: client.status(60).workers[0].state == "idle")
        assert main(["queue", "list"]) == 0
        shown = capsys.readouterr().out
        assert "paused" in shown
        assert "an editor" in shown
        eventually(lambda: [one.state for one in client.steer(m.Steer("list"), 60).jobs] == ["queued", "queued"])
        first, second = client.steer(m.Steer("list"), 60).jobs
        assert (first.num_frames, second.num_frames) == (30, 200)
        assert main(["queue", "cancel", second.job]) == 0
        with pytest.raises(RequestError) as ended:
            list(other)
        assert ended.value.code is ErrorCode.TAKEN_OUT
        assert main(["queue", "resume"]) == 0
        pictures += [event for event in stream if isinstance(event, Picture)]
        assert_all_there(pictures, wanted)


def test_paused_it_comes_back_paused_and_a_copy_of_the_connection_file_steers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as server:
        monkeypatch.setenv("SFSERVER_CONNECTION_FILE", str(server.connection_file))
        assert main(["queue", "pause"]) == 0
    with running(tmp_path) as server:
        assert operator_path(server.connection_file).stat().st_mode & 0o077 == 0
        assert main(["queue", "list"]) == 0
        assert "paused" in capsys.readouterr().out
        operator_path(server.connection_file).unlink()
        assert main(["queue", "resume"]) == USER_ERROR
        assert "operator file" in capsys.readouterr().err
        assert main(["queue", "move"]) == USER_ERROR
