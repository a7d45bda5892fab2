"""What can be known of the Windows half without Windows: the layout of its structures, and what it asks for."""

from __future__ import annotations

import ctypes
import sys

import pytest

from sfserver.serve import win32_job

pytestmark = pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="sizes of 64 bits")


def test_the_structures_are_laid_out_as_windows_has_them() -> None:
    """Sizes and offsets of winnt.h on x64."""
    assert ctypes.sizeof(win32_job._BasicLimits) == 64
    assert ctypes.sizeof(win32_job._ExtendedLimits) == 144
    assert win32_job._BasicLimits.limit_flags.offset == 16
    assert win32_job._ExtendedLimits.process_memory_limit.offset == 112


class Call:
    def __init__(self, name: str, calls: list[tuple[object, ...]], answer: int) -> None:
        self.name, self.calls, self.answer = name, calls, answer
        self.restype = self.argtypes = None

    def __call__(self, *arguments: object) -> int:
        self.calls.append((self.name, *arguments))
        return self.answer


class Kernel:
    def __init__(self, **answers: int) -> None:
        self.calls: list[tuple[object, ...]] = []
        self._made = {name: Call(name, self.calls, answer) for name, answer in answers.items()}

    def __getattr__(self, name: str) -> Call:
        return self._made[name]


@pytest.mark.skipif(sys.platform == "win32", reason="there it would be real")
@pytest.mark.parametrize(("job", "calls"), [(7, ["Create", "SetInf", "GetCur", "Assign"]), (0, ["Create"])])
def test_this_process_enters_a_job_that_ends_with_its_last_handle(
    monkeypatch: pytest.MonkeyPatch, job: int, calls: list[str]
) -> None:
    kernel = Kernel(CreateJobObjectW=job, SetInformationJobObject=1, GetCurrentProcess=9, AssignProcessToJobObject=1)
    monkeypatch.setattr(ctypes, "WinDLL", lambda name, use_last_error: kernel, raising=False)
    win32_job.enter()
    assert [str(call[0])[:6] for call in kernel.calls] == calls
    if job:
        assert kernel.calls[-1][1:] == (7, 9)
