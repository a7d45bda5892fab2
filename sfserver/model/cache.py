"""The KV cache of a causal rollout: which latents every block may look back at, and their keys and values.

The unit is a latent (its tokens stay together), and each latent that is held has one seat in a preallocated buffer. Who
sits where is a matter of host integers; the device is never asked. Seats are not ordered in time: attention does not
care about the order of keys, so a latent that leaves gives its seat to one that comes, and nothing is ever shifted.
Pinned latents sit before all others, the latest in front: those still to come are neighbours, and attention that heeds
them more or less than the rest is to two groups of keys and not to three.

Who stays: the first `sink` latents and all pinned ones always, and of the others the latest, `window` latents with the
sink and the present block counted. A block that is passed again (next denoising step, clean pass) keeps its seats.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from torch import Tensor, cat, device, dtype, empty

from .attention import Group, grouped
from .positions import ABSOLUTE, Positions
from .rope import RopeTable, Rotation, rotate


@frozen
class CacheShape:
    """What decides the size of a cache; counts of latents, except where they say otherwise."""

    layers: int
    heads: int
    head_dim: int
    tokens_per_latent: int
    window: int
    """Latents attended to besides the pinned ones: sink, past and the present block together."""
    sink: int = 0
    """First latents of the clip, which are never evicted."""
    pinned: int = 0
    """Seats for latents that are held out of turn, like a future keyframe's."""
    batch: int = 1

    @property
    def seats(self) -> int:
        return self.window + self.pinned

    def nbytes(self, bytes_per_element: int) -> int:
        """Bytes of keys and values of all layers."""
        tokens = self.batch * self.seats * self.tokens_per_latent
        return 2 * self.layers * tokens * self.heads * self.head_dim * bytes_per_element


class KvCache:
    """Keys and values of the latents that are held. `seat` says who comes next; `extend` is then called per layer.

    Where positions are absolute, keys are stored rotated; those of latents to come are turned anew for each block if
    they may seem nearer than they are. By the other policies keys are stored as they are and all rotated when read.
    """

    def __init__(
        self,
        shape: CacheShape,
        table: RopeTable,
        positions: Positions = ABSOLUTE,
        device: device | str = "cpu",
        dtype: dtype | None = None,
    ):
        self.shape = shape
        self.relative = positions.policy != "absolute"
        """`extend` is to be given the present block's keys as they are, not rotated."""
        self._policy = positions
        self._table = table
        size = (shape.batch, shape.seats * shape.tokens_per_latent, shape.heads, shape.head_dim)
        self._allocate(size, device, dtype)
        self._seats: dict[int, int] = {}  # position of a latent -> its seat
        self._taken = range(0)  # the seats that are: one run
        self._pinned: set[int] = set()
        self._writes: list[tuple[slice, slice]] = []  # the present block's tokens -> their place in the buffers
        self.rotation: Rotation = table.at(0, 0)
        """What the present block's queries are rotated by; its keys too, unless they are rotated when read."""
        self._read_rotation: Rotation | None = None
        self._raw: dict[int, dict[int, Tensor]] = {}
        """Keys of pinned latents as they came, by position and layer, where they are turned anew for each block."""
        self._turns: list[tuple[int, slice, int, Rotation]] = []
        """Those that the present pass turns: position, place in the buffers, where they seem to lie, and by what that
        turns."""
        self._turned: dict[tuple[int, int], int] = {}
        """Where they seem to lie by now, by position and layer: the passes over one block turn them once."""

    def _allocate(self, size: tuple[int, ...], device: device | str, dtype: dtype | None) -> None:
        self._keys = [empty(size, device=device, dtype=dtype) for _ in range(self.shape.layers)]
        self._values = [empty(size, device=device, dtype=dtype) for _ in range(self.shape.layers)]

    @property
    def nbytes(self) -> int:
        raw = (key for layers in self._raw.values() for key in layers.values())
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values, *raw))

    @property
    def positions(self) -> list[int]:
        """Latents that are held, in order of time."""
        return sorted(self._seats)

    def seat(self, start: int, count: int, pin: bool = False, final: bool = False) -> None:
        """Make the latents from `start` on the present block: whoever must leave for them leaves now.

        `pin` holds them until the end. Pinned latents within a later block keep the keys they were pinned with, and the
        block sees those instead of its own noisy ones, until a pass that is `final` renews them.
        """
        block = range(start, start + count)
        coming = [position for position in block if position not in self._seats]
        if pin:
            self._pinned.update(block)
        else:
            self._evict(len(coming))
        self._seats |= zip(coming, self._free(len(coming), pin), strict=True)
        self._close_up()

        kept = set() if pin or final else self._pinned
        self._writes = self._plan_writes([position for position in block if position not in kept], start)
        if final and not pin:
            self._raw = {position: layers for position, layers in self._raw.items() if position not in block}
        self._plan_rotations(start, count, pin)

    def _free(self, count: int, pin: bool) -> list[int]:
        own = range(self.shape.pinned) if pin else range(self.shape.pinned, self.shape.seats)
        free = sorted(set(own).difference(self._seats.values()), reverse=pin)
        assert count <= len(free), f"{count} latents come, {len(free)} seats are free: {self.shape}"
        return free[:count]

    def _close_up(self) -> None:
        """A hole among the seats would be attended to: who sits beyond moves into it. It comes about where a window is
        made anew and the first seats are not the sink's."""
        rolling = {position: seat for position, seat in self._seats.items() if seat >= self.shape.pinned}
        stop = self.shape.pinned + len(rolling)
        holes = sorted(set(range(self.shape.pinned, stop)).difference(rolling.values()))
        beyond = [position for position, seat in rolling.items() if seat >= stop]
        for position, hole in zip(beyond, holes, strict=True):
            self._move(self._seats[position], hole)
            self._seats[position] = hole
        self._taken = range(stop - len(self._seats), stop)

    def _move(self, seat: int, to: int) -> None:
        tokens = self.shape.tokens_per_latent
        for tensor in (*self._keys, *self._values):
            tensor[:, to * tokens : (to + 1) * tokens] = tensor[:, seat * tokens : (seat + 1) * tokens]

    def _evict(self, coming: int) -> None:
        rolling = [position for position in self.positions if position not in self._pinned]
        overflow = max(0, len(rolling) + coming - self.shape.window)
        for position in rolling[self.shape.sink : self.shape.sink + overflow]:
            del self._seats[position]

    def _plan_writes(self, positions: list[int], start: int) -> list[tuple[slice, slice]]:
        """Runs of neighbours are copied at once: mostly one run, two where the window wraps around."""
        runs: list[list[int]] = []  # first position, first seat, length
        for position in positions:
            seat = self._seats[position]
            if runs and position == runs[-1][0] + runs[-1][2] and seat == runs[-1][1] + runs[-1][2]:
                runs[-1][2] += 1
            else:
                runs.append([position, seat, 1])
        tokens = self.shape.tokens_per_latent
        return [
            (
                slice((position - start) * tokens, (position - start + length) * tokens),
                slice(seat * tokens, (seat + length) * tokens),
            )
            for position, seat, length in runs
        ]

    def _plan_rotations(self, start: int, count: int, pin: bool) -> None:
        seems = self._policy.of(self.positions, start, count, self.shape.sink)
        self.rotation = self._table.at(seems[start], count)
        if self._policy.policy != "absolute":
            in_seats = sorted(self._seats, key=self._seats.__getitem__)
            self._read_rotation = self._table.gather([seems[position] for position in in_seats])
            return
        turning = pin and self._policy.reach is not None
        self.relative = turning
        if turning:
            self._raw |= {position: {} for position in range(start, start + count)}
        self._turns = [
            (p, self._place(p), seems[p], self._table.at(seems[p], 1)) for p in self._raw if self._is_due(p, seems[p])
        ]

    def _is_due(self, position: int, seems: int) -> bool:
        """Whether some layer's keys of a pinned latent are not turned to there."""
        return any(self._turned.get((position, layer)) != seems for layer in range(self.shape.layers))

    def _place(self, position: int) -> slice:
        tokens = self.shape.tokens_per_latent
        return slice(self._seats[position] * tokens, (self._seats[position] + 1) * tokens)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the present block's k, v [B, L, N, D] of one layer; all keys (rotated) and values that it attends to.

        Where `relative` is true, the k given are not rotated yet. The answers are views of the buffers, [B, K, N, D].
        """
        self._store(layer, k, v)
        self._turn(layer)
        keys, values = self._held(layer)
        if self._read_rotation is not None:
            keys = rotate(keys, self._read_rotation)
        return keys, values

    def _store(self, layer: int, k: Tensor, v: Tensor) -> None:
        for source, place in self._writes:
            self._keys[layer][:, place] = k[:, source]
            self._values[layer][:, place] = v[:, source]

    def _turn(self, layer: int) -> None:
        """Keys of pinned latents, to where they seem to lie for the present block."""
        for position, place, seems, rotation in self._turns:
            if layer not in self._raw[position]:  # it was pinned just now
                self._raw[position][layer] = self._keys[layer][:, place].clone()
            elif self._turned[position, layer] == seems:
                continue
            self._keys[layer][:, place] = rotate(self._raw[position][layer], rotation)
            self._turned[position, layer] = seems

    def _held(self, layer: int) -> tuple[Tensor, Tensor]:
        tokens = self.shape.tokens_per_latent
        held = slice(self._taken.start * tokens, self._taken.stop * tokens)
        return self._keys[layer][:, held], self._values[layer][:, held]

    def groups(self, biases: Mapping[int, tuple[float, ...]]) -> list[Group]:
        """All keys that are held, as groups of equal bias: those of latents without one have none. -inf is left out."""
        tokens, in_seats = self.shape.tokens_per_latent, sorted(self._seats, key=self._seats.__getitem__)
        rows = (slice(i * tokens, (i + 1) * tokens) for i in range(len(in_seats)))
        return grouped(zip(rows, (biases.get(position, (0.0,)) for position in in_seats), strict=True))

    def truncate(self, start: int) -> None:
        """Forget all latents from `start` on that are not pinned: a block that was broken off has left noise there."""
        self._seats = {p: seat for p, seat in self._seats.items() if p < start or p in self._pinned}

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """Copies of one layer's keys (as stored) and values in order of time, [B, K, N, D]. For looking inside."""
        tokens = self.shape.tokens_per_latent
        places = [i for p in self.positions for i in range(self._seats[p] * tokens, (self._seats[p] + 1) * tokens)]
        return self._keys[layer][:, places], self._values[layer][:, places]


class GraphCache(KvCache):
    """A cache that backward can go through: each seat holds tensors of the graph, and nothing is written in place.

    It answers what `KvCache` answers, and copies all of it in every pass: for training.
    """

    def _allocate(self, size: tuple[int, ...], device: device | str, dtype: dtype | None) -> None:
        self._latents: list[dict[int, tuple[Tensor, Tensor]]] = [{} for _ in range(self.shape.layers)]

    def _store(self, layer: int, k: Tensor, v: Tensor) -> None:
        tokens = self.shape.tokens_per_latent
        for source, place in self._writes:
            first = place.start // tokens
            pairs = zip(k[:, source].split(tokens, 1), v[:, source].split(tokens, 1), strict=True)
            self._latents[layer].update(enumerate(pairs, start=first))

    def _move(self, seat: int, to: int) -> None:
        for latents in self._latents:
            if seat in latents:
                latents[to] = latents[seat]

    def _held(self, layer: int) -> tuple[Tensor, Tensor]:
        keys, values = zip(*(self._latents[layer][seat] for seat in self._taken), strict=True)
        return cat(keys, dim=1), cat(values, dim=1)
