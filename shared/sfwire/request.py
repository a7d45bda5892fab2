"""What a program asks of a server, and what it hears: requests and the events of their streams."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from . import limits as L
from . import messages as m
from .codec import Buffer
from .errors import WireError


@frozen(eq=False)
class Request:
    """In-betweens to make: `Generate` as a program states it, before it has an id. Pictures are raw, row by row."""

    keyframes: tuple[tuple[int, Buffer], ...]
    """(frame index in the clip, width * height * channels samples) each."""
    width: int
    height: int
    num_frames: int
    """Length of the clip, keyframes counted."""
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    engine: str = "auto"
    """An id from Welcome, or `auto` for what the server takes for such a clip; it says so in a Progress."""
    params: Mapping[str, m.Value] = field(factory=dict[str, m.Value])
    encoding: m.Encoding = "raw"
    prompts: tuple[tuple[int, str], ...] = ()
    """(frame index, prompt) in order of time: from that frame on it takes the place of `prompt`."""
    start_from: int = 0
    """Pictures before this position are not wanted: they are there from an earlier request that was broken off."""
    channels: int = L.CHANNELS
    """Of all keyframes: 3 is RGB, 4 is RGBA with straight alpha."""
    depth: int = L.DEPTH
    """Bits a sample: 8, 16, or 32 for floats; little-endian."""
    priority: m.Priority = "interactive"
    """`batch` lets requests go first for which somebody waits."""

    def wanted(self) -> list[int]:
        """Positions that will be delivered, in order: all that hold no keyframe, from `start_from` on."""
        held = {at for at, _ in self.keyframes}
        return [i for i in range(self.start_from, self.num_frames) if i not in held]

    def generate(self, id: str, engine: str, resume_from: int = 0, credit: int = 0) -> m.Generate:
        """The message that asks for it. Raises messages.Refused for a value that the protocol does not allow."""
        return m.Generate(
            id=id,
            engine=engine,
            width=self.width,
            height=self.height,
            num_frames=self.num_frames,
            keyframes=tuple(
                m.Keyframe(at, i, self.width, self.height, self.channels, self.depth)
                for i, (at, _) in enumerate(self.keyframes)
            ),
            seed=self.seed,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            params=self.params,
            resume_from=max(resume_from, self.start_from),
            credit=credit,
            encoding=self.encoding,
            prompts=tuple(m.PromptAt(at, text) for at, text in self.prompts),
            priority=self.priority,
        )


@frozen(eq=False)
class Picture:
    """One in-between frame. `data` is a PNG file, or as raw as the keyframes were: `channels` samples a pixel."""

    index: int
    width: int
    height: int
    encoding: m.Encoding
    data: Buffer
    confidence: float | None
    channels: int = L.CHANNELS
    depth: int = L.DEPTH


@frozen
class Interrupted:
    """The stream is broken off and being taken up again; nothing is asked of the program."""

    reason: str


@frozen(eq=False)
class Ended:
    """The last event of every stream: `done`, or the error that ended it."""

    done: m.Done | None = None
    error: WireError | None = None


Event = m.Accepted | m.Progress | Picture | Interrupted | Ended
