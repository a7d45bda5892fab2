"""What a GPU is to reach, by id: a figure of `sfserver bench --gpu` says which of these it answers."""

from __future__ import annotations

from attrs import frozen


@frozen
class Goal:
    id: str
    what: str
    target: str
    cap: str
    """What the hardware leaves room for, by the FLOPs and bytes of the work; empty where nothing is known."""


GOALS = (
    Goal("G1", "a clip of 81 frames, full window, bf16 and TAEHV, against the published pipeline", ">= 3.0 x", "3.6 x"),
    Goal("G2", "the same with declared 8 bit", ">= 4.0 x", "6.4 x"),
    Goal("G3", "the same arithmetic and the same Wan VAE as the published pipeline", ">= 1.5 x", "2.9 x"),
    Goal("G4", "a pass that attends to 15 latents, of the rate of a large matrix product", ">= 0.7", "1"),
    Goal("G5", "first frame at the client, prompt known", "<= 150 ms", "91 ms"),
    Goal("G6", "what an anchored end keyframe costs of a clip", "<= 1.10 x", "1.08 x"),
    Goal("G7", "frames a second at 416x240 against 832x480", ">= 3 x", "4.5 x"),
    Goal("G8", "peak memory, full window, TAEHV, bf16", "<= 11.5 GB", "11.1 GB"),
    Goal("G9", "block 60 against block 10 behind a window of 12 latents", "<= 1.03 x", "1.0 x"),
    Goal("G10", "from process start to ready, files in the page cache", "<= 15 s", ""),
)
