"""FLOPs of the networks, two for a multiplication with an addition: what a pass cannot do without."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..model.config import PATCH, DitConfig
from ..model.tae import Tae
from ..model.vae import WanVae


def pass_flops(config: DitConfig, queries: int, keys: int) -> int:
    """One pass of the transformer over `queries` tokens that attend to `keys`, the prompt's keys and values given."""
    d, channels = config.dim, config.in_channels + config.out_channels
    linear = 2 * (6 * d * d + 2 * d * config.ffn_dim)
    attention = 4 * (keys + config.text_len) * d
    ends = 2 * PATCH[1] * PATCH[2] * channels * d
    return queries * (config.layers * (linear + attention) + ends)


def decode_flops(decoder: WanVae | Tae, width: int, height: int, latents: int) -> int:
    """Decoding `latents` of a clip in mid-stream, counted on a decoder without weights."""
    with torch.device("meta"), torch.no_grad():
        empty = type(decoder)(decoder.config)  # pyright: ignore[reportArgumentType]
        shape = (1, latents, empty.z_channels, height // empty.spatial_stride, width // empty.spatial_stride)
        state = empty.new_decoder_state()
        empty.decode(torch.zeros(shape), state)
        with FlopCounterMode(display=False) as counter:
            empty.decode(torch.zeros(shape), state)
    return counter.get_total_flops()
