"""A causal Wan 2.1 rollout written down from its formulas, to compare the product with: numpy, and no line of ours.

Everything is done the long way, in float64. A cache is a dictionary from a latent to its keys, never rotated before
they are read; each pass rotates all it holds by complex numbers. Tensors have the official names.

Letters of shapes: F latents, C channels, H W height and width of a latent, L tokens, N heads, D head width, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPS = 1e-6
FOUR_STEPS = (1000, 750, 500, 250)


# Positions: where the latents that are held, of which the last are the block, are when they are attended to.

Positions = Callable[[Sequence[int], int], Sequence[int]]
"""(latents held, sink) -> position of each."""


def true_places(held: Sequence[int], sink: int) -> Sequence[int]:
    """Self Forcing, Causal Forcing."""
    return held


def counted(held: Sequence[int], sink: int) -> Sequence[int]:
    return range(len(held))


def top_aligned(trained: int) -> Positions:
    """Self Gradient Forcing: the sink at 0 to sink - 1, the others at Q - (n - sink - 1) to Q."""

    def positions(held: Sequence[int], sink: int) -> Sequence[int]:
        n, q = len(held), min(held[-1], trained - 1)
        return [*range(min(sink, n)), *range(q - (n - sink - 1), q + 1)]

    return positions


def sink_before_window(held: Sequence[int], sink: int) -> Sequence[int]:
    """Rolling Forcing: the window where it is, the sink moved to right before it."""
    window = held[sink:]
    return held if not window else [*range(window[0] - sink, window[0]), *window]


# The transformer


@frozen(eq=False)
class Network:
    """Tensors by name, and the sizes that they do not tell."""

    tensors: Mapping[str, Array]
    heads: int
    text_len: int

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def split(self, x: Array) -> Array:
        """[L, d] to [L, N, D]."""
        return x.reshape(len(x), self.heads, -1)

    def rms(self, name: str, x: Array) -> Array:
        """Over all heads together."""
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * self.tensors[f"{name}.weight"]

    @property
    def layers(self) -> int:
        return sum(name.endswith("self_attn.q.weight") for name in self.tensors)

    def text(self, rows: Array) -> list[tuple[Array, Array]]:
        """Keys and values [T, N, D] of a prompt in each layer; rows that are missing are zeros, and attended to."""
        padded = np.zeros((self.text_len, rows.shape[1]))
        padded[: len(rows)] = rows
        embedded = self.linear("text_embedding.2", gelu(self.linear("text_embedding.0", padded)))
        at = "blocks.{}.cross_attn.{}"
        return [
            (
                self.split(self.rms(at.format(i, "norm_k"), self.linear(at.format(i, "k"), embedded))),
                self.split(self.linear(at.format(i, "v"), embedded)),
            )
            for i in range(self.layers)
        ]

    def patches(self, x: Array) -> Array:
        """[F, C, H, W] to [L, d]: a token for each 2 x 2, by latent, row and column."""
        f, c, height, width = x.shape
        squares = x.reshape(f, c, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 4 * c)
        weight = self.tensors["patch_embedding.weight"]
        return squares @ weight.reshape(len(weight), -1).T + self.tensors["patch_embedding.bias"]

    def projected(self, layer: int, y: Array) -> tuple[Array, Array, Array]:
        """q, k, v [L, N, D] of self-attention, not rotated."""
        at = f"blocks.{layer}.self_attn."
        q, k = (self.rms(f"{at}norm_{one}", self.linear(f"{at}{one}", y)) for one in "qk")
        return self.split(q), self.split(k), self.split(self.linear(f"{at}v", y))

    def crossed(self, layer: int, stream: Array, k: Array, v: Array) -> Array:
        """What the prompt adds."""
        at = f"blocks.{layer}."
        y = normed(stream) * self.tensors[f"{at}norm3.weight"] + self.tensors[f"{at}norm3.bias"]
        q = self.rms(f"{at}cross_attn.norm_q", self.linear(f"{at}cross_attn.q", y))
        return self.linear(f"{at}cross_attn.o", attention(self.split(q), k, v))

    def time(self, t: float) -> tuple[Array, Array]:
        """What modulates the head [d] and the blocks [6, d]."""
        half = self.tensors["time_embedding.0.weight"].shape[1] // 2
        angles = t * 10000.0 ** (-np.arange(half) / half)
        wave = np.concatenate([np.cos(angles), np.sin(angles)])
        e = self.linear("time_embedding.2", silu(self.linear("time_embedding.0", wave)))
        return e, self.linear("time_projection.1", silu(e)).reshape(6, -1)


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def normed(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS)


def attention(q: Array, k: Array, v: Array) -> Array:
    """q [L, N, D] to k, v [K, N, D]: [L, d]."""
    logits = np.einsum("lnd,knd->nlk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("nlk,knd->lnd", weights, v).reshape(len(q), -1)


def rotated(x: Array, position: int, rows: int, columns: int) -> Array:
    """The tokens of one latent [rows * columns, N, D], turned by where they are in time, row and column."""
    pairs = x.shape[-1] // 2
    shares = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = np.concatenate(
        [
            np.outer(np.broadcast_to(place, rows * columns), 10000.0 ** (-np.arange(n) / n))
            for place, n in zip((position, row, column), shares, strict=True)
        ],
        axis=1,
    )
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None]
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = turned.real, turned.imag
    return out


# The rollout


@frozen
class Rules:
    """How a model is published to be rolled out. Counts of latents."""

    per_block: int
    window: int
    sink: int = 0
    positions: Positions = true_places
    steps: tuple[int, ...] = FOUR_STEPS
    first_steps: tuple[int, ...] = ()
    """Of the first block that is made, where it has others."""
    shift: float = 5.0


@frozen(eq=False)
class RollOut:
    """One clip. Keys and values [tokens, N, D] are kept as (layer, latent) -> (k, v), keys not rotated."""

    rules: Rules
    denoiser: Network
    memory: Network
    """Makes the clean passes: the denoiser itself, but for Self Gradient Forcing+."""
    prompt: Array
    """Rows [T, text_dim] of the text encoder."""
    noise: Callable[[int, int, int], Array]
    """(block, step, count) -> [F, C, H, W]."""
    held: list[int] = field(factory=list[int])
    kept: dict[tuple[int, int], tuple[Array, Array]] = field(factory=dict[tuple[int, int], tuple[Array, Array]])

    def run(self, first: Array, latents: int) -> Array:
        """[F, C, H, W] of a clip that begins with the latent `first` [C, H, W]."""
        made = [first[None]]
        self.one_pass(self.memory, made[0], 0.0, [0])
        for index, start in enumerate(range(1, latents, self.rules.per_block)):
            block = list(range(start, min(start + self.rules.per_block, latents)))
            made.append(self.denoised(index, block))
            self.one_pass(self.memory, made[-1], 0.0, block)
        return np.concatenate(made)

    def denoised(self, index: int, block: list[int]) -> Array:
        steps = self.rules.first_steps if index == 0 and self.rules.first_steps else self.rules.steps
        u = 1 - np.arange(1000) / 1000
        sigmas = self.rules.shift * u / (1 + (self.rules.shift - 1) * u)
        x = self.noise(index, 0, len(block))
        for i, k in enumerate(steps):
            sigma = sigmas[1000 - k]
            x = x - sigma * self.one_pass(self.denoiser, x, 1000 * sigma, block)
            if i + 1 < len(steps):
                sigma = sigmas[1000 - steps[i + 1]]
                x = (1 - sigma) * x + sigma * self.noise(index, i + 1, len(block))
        return x

    def one_pass(self, network: Network, x: Array, t: float, block: list[int]) -> Array:
        """The flow [F, C, H, W] of a block's latents; what it leaves in the cache takes the place of what it left."""
        self.held[:] = sorted({*self.held, *block})
        while len(self.held) > self.rules.window:
            del self.held[self.rules.sink]
        places = dict(zip(self.held, self.rules.positions(self.held, self.rules.sink), strict=True))
        e, e0 = network.time(t)
        text = network.text(self.prompt)
        stream = network.patches(x)
        for i in range(network.layers):
            m = network.tensors[f"blocks.{i}.modulation"][0] + e0
            q, k, v = network.projected(i, normed(stream) * (1 + m[1]) + m[0])
            attended = self.attended(i, q, k, v, block, places, x.shape[2] // 2, x.shape[3] // 2)
            stream = stream + network.linear(f"blocks.{i}.self_attn.o", attended) * m[2]
            stream = stream + network.crossed(i, stream, *text[i])
            y = network.linear(f"blocks.{i}.ffn.0", normed(stream) * (1 + m[4]) + m[3])
            stream = stream + network.linear(f"blocks.{i}.ffn.2", gelu(y)) * m[5]
        m = network.tensors["head.modulation"][0] + e
        out = network.linear("head.head", normed(stream) * (1 + m[1]) + m[0])
        f, c, height, width = x.shape
        return out.reshape(f, height // 2, width // 2, 2, 2, c).transpose(0, 5, 1, 3, 2, 4).reshape(x.shape)

    def attended(
        self,
        layer: int,
        q: Array,
        k: Array,
        v: Array,
        block: list[int],
        places: Mapping[int, int],
        rows: int,
        columns: int,
    ) -> Array:
        """A block's self-attention [L, d] to all that is held, itself included."""
        by_latent = (np.split(each, len(block)) for each in (q, k, v))
        queries: list[Array] = []
        for latent, its_q, its_k, its_v in zip(block, *by_latent, strict=True):
            self.kept[layer, latent] = its_k, its_v
            queries.append(rotated(its_q, places[latent], rows, columns))
        keys = [rotated(self.kept[layer, latent][0], places[latent], rows, columns) for latent in self.held]
        values = [self.kept[layer, latent][1] for latent in self.held]
        return attention(*map(np.concatenate, (queries, keys, values)))
