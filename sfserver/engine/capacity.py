"""How much device memory a clip needs, and the largest size that fits. Arithmetic only; imports no torch."""

from __future__ import annotations

from typing import Literal

from attrs import evolve, frozen

from ..model.config import DitConfig
from .geometry import SIZE_MULTIPLE, Geometry
from .presets import TRAINED_LATENTS, Preset

Decoder = Literal["wan", "tae"]
"""The model's own, or the small one."""

USUAL_SIZE = (832, 480)
"""What the 1.3B models were trained at."""
OVERHEAD_BYTES = 900 * 1024**2
"""A CUDA context, its libraries and their workspaces."""
SCALE_BYTES = 4
"""For each row of a matrix in 8 bits."""
VAE_PARAMETERS = 126_900_000
VAE_STATE_ELEMENTS = 2 * 75_664 // 64
"""Kept between blocks per pixel: two past frames for each causal layer of the decoder, whose channels times resolution,
in units of a latent pixel of 64 pixels, add up to 75664."""
ENCODER_STATE_ELEMENTS = 1404
"""The same of the encoder, whose input has full resolution."""
VAE_WORK_ELEMENTS = 2_340
"""Alive at once per pixel while decoding, beside that: about six feature maps of a latent's four frames, of 96 channels
each. This and the next are counted call by call (`bench.counted`), and a test holds them to it."""
ENCODER_WORK_ELEMENTS = 1_500
TAE_STATE_ELEMENTS = 3 * (256 // 64 + 128 // 16 + 64 // 4)
"""Kept by the small decoder: one past frame for each of three blocks at an eighth, a quarter and half of the size."""
DRAFT_BYTES_PER_PIXEL = 620
"""Working memory of a frame of the draft engine beyond that of planning. Measured on a CPU, a cut-out in front of the
ground: 419 at 4096x2160 (251 where the keyframes explain all and RIFE is not asked), 493 at 1920x1080 with a camera and
both ways."""
ALONG_BYTES_PER_PIXEL = 90
"""More of it where four channels move along beside the colours. Measured at 1920x1080, both ways: 565 with them and
499 without under a camera, 482 and 472 for a cut-out."""
DRAFT_PLANNING_BYTES = 170_000_000
"""Of looking at two keyframes, whatever their size: 168 MB measured."""
DRAFT_PAD_PX = 64
"""It pads both sides to this."""
DRAFT_WEIGHT_BYTES = 25 * 10**6
"""What stays on the device once it is loaded, at most: its file, whose size a test holds to this."""
TAE_WORK_ELEMENTS = 4 * (64 + 64 + 2 * 3)
"""Alive at once per pixel in its last layers: the map that is doubled and what comes of it, for four frames."""


@frozen
class Need:
    """What decides the memory of one clip."""

    config: DitConfig
    per_pass: int
    """Latents of the largest block."""
    seats: int
    """Latents in all caches together; 0 without a cache."""
    vace_span: int
    """Latents that the VACE branch sees at once; 0 without one."""
    element_bytes: int
    transformers: int = 1
    """Two where clean passes have one of their own."""
    raw: int = 0
    """Latents in all caches whose keys are kept a second time, not rotated: those that seem nearer than they are."""
    encoder_states: int = 0
    """Of the VAE's encoder, that wait between blocks for the next part of the VACE context."""

    decoder: Decoder = "wan"
    eight_bit: bool = False
    """Whether the large matrices are in 8 bits."""
    drafted: bool = False
    """The draft engine makes what the model is shown around keyframes."""
    matted: bool = False
    """The draft engine makes the alpha of each block as it leaves."""

    @property
    def weight_bytes(self) -> int:
        return weight_bytes(self.config, self.element_bytes, self.transformers, self.eight_bit)

    def cache_bytes(self, width: int, height: int) -> int:
        """Of keys and values, exactly."""
        held = 2 * self.seats + self.raw
        return held * self.config.layers * tokens_of(width, height) * self.config.dim * self.element_bytes

    def beyond_weights(self, width: int, height: int, beside: bool = False) -> int:
        """Bytes that a clip needs where the model is loaded already."""
        return self.at(width, height, beside) - self.weight_bytes - OVERHEAD_BYTES

    def at(self, width: int, height: int, beside: bool = False) -> int:
        """Bytes of everything, about, at a size in pixels; decoding in turn with the passes or `beside` them."""
        c = self.config
        tokens = tokens_of(width, height)
        text = 2 * (self.transformers * c.layers + len(c.vace_layers)) * c.text_len * c.dim * self.element_bytes
        widest = max(self.per_pass, self.vace_span) * tokens
        # Alive at once in the widest layer: the residual stream, its norm and that modulated, in float32; and in the
        # weights' precision either queries, keys, values and the answer or both ends of the feed-forward. Keys and
        # values that no cache took are alive as well.
        in_float32, own_keys = 3 * c.dim, 0 if self.seats else 2 * c.dim
        activations = widest * (
            4 * in_float32 + (max(4 * c.dim, 2 * c.ffn_dim + c.dim) + own_keys) * self.element_bytes
        )
        if self.eight_bit:  # what enters the largest product: as it is, and in float32 thrice while it is rounded
            activations = max(activations, widest * (4 * in_float32 + c.ffn_dim * (self.element_bytes + 3 * 4 + 1)))
        hints = len(c.vace_layers) * widest * c.dim * self.element_bytes if self.vace_span else 0
        is_tae = self.decoder == "tae"
        state = (TAE_STATE_ELEMENTS if is_tae else VAE_STATE_ELEMENTS) * width * height * self.element_bytes
        encoder_state = ENCODER_STATE_ELEMENTS * width * height * self.element_bytes
        decoding = (TAE_WORK_ELEMENTS if is_tae else VAE_WORK_ELEMENTS) * width * height * self.element_bytes
        work = ENCODER_WORK_ELEMENTS * width * height * self.element_bytes
        encoding = encoder_state + work if self.vace_span else 0
        kept = self.weight_bytes + self.cache_bytes(width, height) + text + state
        kept += self.encoder_states * encoder_state
        at_once = activations + hints + decoding if beside else max(activations + hints, decoding)
        if self.matted:  # between two passes, while the block before may still be decoded
            at_once = max(at_once, decoding + draft_bytes(width, height, along=True))
        most = kept + max(at_once, encoding)
        if self.drafted:  # before there is a cache or anything to decode
            most = max(most, self.weight_bytes + text + draft_bytes(width, height))
        return most + OVERHEAD_BYTES + (self.drafted or self.matted) * DRAFT_WEIGHT_BYTES


def draft_bytes(width: int, height: int, along: bool = False) -> int:
    """What the draft engine works in, beside its weights; `along`: alpha or light above 1 moves along with colours."""
    pixels = (width + -width % DRAFT_PAD_PX) * (height + -height % DRAFT_PAD_PX)
    return pixels * (DRAFT_BYTES_PER_PIXEL + along * ALONG_BYTES_PER_PIXEL) + DRAFT_PLANNING_BYTES


def tokens_of(width: int, height: int) -> int:
    """Tokens of one latent."""
    return (width // SIZE_MULTIPLE) * (height // SIZE_MULTIPLE)


def weight_bytes(config: DitConfig, element_bytes: int, transformers: int = 1, eight_bit: bool = False) -> int:
    """Of what stays on the device between clips: transformers, VACE branch and VAE."""
    further = evolve(config, vace_layers=())
    parameters = dit_parameters(config) + (transformers - 1) * dit_parameters(further) + VAE_PARAMETERS
    if not eight_bit:
        return parameters * element_bytes
    (large, rows), (large_further, rows_further) = large_matrices(config), large_matrices(further)
    large, rows = large + (transformers - 1) * large_further, rows + (transformers - 1) * rows_further
    return (parameters - large) * element_bytes + large + SCALE_BYTES * rows


def large_matrices(config: DitConfig) -> tuple[int, int]:
    """(parameters, rows) of the matrices that may be in 8 bits, `model.eightbit`, exactly."""
    d, ffn = config.dim, config.ffn_dim
    branch = len(config.vace_layers)
    blocks, beside = config.layers + branch, branch + bool(branch)
    return blocks * (8 * d * d + 2 * d * ffn) + beside * d * d, blocks * (9 * d + ffn) + beside * d


def dit_parameters(config: DitConfig) -> int:
    """Parameters of a transformer and its VACE branch, exactly."""
    d, ffn = config.dim, config.ffn_dim
    block = 8 * d * d + 8 * d + 2 * d * ffn + ffn + d + 4 * d + 2 * d + 6 * d
    patch = 4 * (config.in_channels * d) + d
    text = config.text_dim * d + d + d * d + d
    time = config.freq_dim * d + d + d * d + d + 6 * (d * d + d)
    head = 2 * d + 4 * config.out_channels * (d + 1)
    base = config.layers * block + patch + text + time + head
    if not config.vace_layers:
        return base
    vace = len(config.vace_layers) * (block + d * d + d) + d * d + d + 4 * config.vace_in_channels * d + d
    return base + vace


def need_of(
    preset: Preset,
    strategy: str,
    window: int,
    latents: int,
    keyframes: int,
    decoder: Decoder = "wan",
    eight_bit: bool = False,
) -> Need:
    """Of a clip with a preset under settings, in bfloat16 but for matrices in 8 bits. The first of the keyframes is
    taken to begin the clip."""
    parts = strategy.split("+")
    caches = 2 if preset.guidance > 1 else 1
    held = latents if "joint" in parts else min(window, latents)
    pinned = keyframes - 1 if "anchor" in parts else 0
    sees = 0
    if preset.dit.vace_layers and parts != ["anchor"]:
        sees = preset.per_block if "chunk" in parts else min(latents, TRAINED_LATENTS)
    return Need(
        config=preset.dit,
        per_pass=latents if "joint" in parts else preset.per_block,
        seats=0 if parts == ["joint"] else caches * (held + pinned),
        vace_span=sees,
        element_bytes=2,
        transformers=preset.transformers,
        decoder=decoder,
        eight_bit=eight_bit,
    )


def usual_bytes(preset: Preset, eight_bit: bool = False) -> int:
    """Device memory at the usual size and length, by the preset's first strategy, from one keyframe to another."""
    need = need_of(preset, preset.strategies[0], preset.window, TRAINED_LATENTS, keyframes=2, eight_bit=eight_bit)
    return need.at(*USUAL_SIZE)


def largest_size(need: Need, geometry: Geometry, available_bytes: int) -> tuple[int, int] | None:
    """The largest size of about the clip's shape, and smaller than it, that fits; None where not even 16 wide does.

    Smaller, for it is asked for when the clip did not fit, whatever the estimate says.
    """
    for width in range(geometry.width - SIZE_MULTIPLE, 0, -SIZE_MULTIPLE):
        height = round(width * geometry.height / geometry.width / SIZE_MULTIPLE) * SIZE_MULTIPLE
        if height and need.at(width, height) <= available_bytes:
            return width, height
    return None
