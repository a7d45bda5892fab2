"""How one picture became the other, as far as planes can say it: matched patches, and the motions many of them share.

Patches are looked for where two gradients cross, at five scales, each turned to its own direction and compared in
colour (after Brown, Szeliski and Winder, "Multi-Image Matching using Multi-Scale Oriented Patches", CVPR 2005). Two of
them make a similarity; the one that most others agree with is a motion, refined to an affinity or a homography where
enough agree; then the rest is asked again (consensus after Fischler and Bolles, CACM 24(6), 1981).

Places are in pixels from the upper left corner of the picture, so that the first pixel's middle is at 0.5. Thresholds
are for pictures of about 512x288. Everything runs on a CPU, and draws from a seed: same pictures, same motions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from .windows import widened

SCALES = (1.0, 2**0.5, 2.0, 2 * 2**0.5, 4.0)
PATCH_SIDE, PATCH_STEP_PX = 9, 3.0
MARGIN_PX, PEAK_REACH_PX = 6, 3
LEAST_CORNER, LEAST_CONTRAST = 1e-5, 0.25
ACROSS, DOWN, MOST_IN_CELL, LEAST_IN_CELL = 10, 6, 14, 3
"""Corners are spread: the best few of each cell of a grid, fewer where a pixel is larger."""
LEAST_ALIKE = 0.75
"""Correlation of two patches that may be one."""
RIVAL_PX, LEAST_LEAD = 12, 0.88
"""A match's distance is at most this share of the distance of the next best, elsewhere."""

MOST_MOTIONS = 6
DRAWS = 4000
JUDGES = 500
"""Matches that a draw is judged by, where there are more."""
SEED = 0
TOLERANCE_PX = 3.0
LEAST_CELLS, FINE_CELL_PX = 6, 10
"""Matches in fewer places than this are no motion."""
TURN_TOLERANCE, SIZE_TOLERANCE, MOST_SIZE = 0.5, 0.6, 3.3
"""How far, in radians and in the logarithm of size, patches may differ from the motion they vote for."""
FOR_AFFINE, FOR_HOMOGRAPHY = 16, 40
"""Matches that it takes, and the least spread across, in pixels, that fixes what is more than a similarity."""
AFFINE_SPREAD_PX, HOMOGRAPHY_SPREAD_PX = 10, 40


@frozen(eq=False)
class Matches:
    """N patches of A found again in B."""

    a: Tensor
    """[N, 2]: x and y in A."""
    b: Tensor
    """[N, 2]: x and y in B."""
    turn: Tensor
    """[N]: how much each is turned, in radians."""
    size: Tensor
    """[N]: how many times as large it is in B."""

    def __len__(self) -> int:
        return len(self.a)


@frozen(eq=False)
class Motion:
    """A plane motion and the matches that follow it."""

    matrix: Tensor
    """[3, 3] float64: places in A to places in B."""
    a: Tensor
    """[n, 2]: where in A."""
    b: Tensor
    """[n, 2]: where in B."""


@frozen(eq=False)
class _Corners:
    places: Tensor
    turns: Tensor
    scales: Tensor
    looks: Tensor
    """[N, 243]: colours of the patch, mean 0 and length 1."""


def match(pictures: Tensor) -> Matches:
    """[2, 3, H, W], RGB 0 to 1 -> the patches that are each other's best."""
    a, b = _corners(pictures[:1]), _corners(pictures[1:])
    if len(a.places) < 2 or len(b.places) < 2:
        return Matches(*(torch.zeros(0, *shape) for shape in ((2,), (2,), (), ())))
    alike = a.looks @ b.looks.T
    best, in_b = alike.max(1)
    mutual = alike.max(0).indices[in_b] == torch.arange(len(in_b))  # `argmax` over the first axis takes far longer
    (i,) = torch.nonzero(mutual & (best > LEAST_ALIKE), as_tuple=True)  # few: only they are asked for their rivals
    j = in_b[i]
    elsewhere = torch.cdist(b.places[j], b.places, p=torch.inf) > RIVAL_PX
    second = torch.where(elsewhere, alike[i], -1.0).amax(1)
    lead = (2 - 2 * best[i]).clamp(min=0) / (2 - 2 * second).clamp(min=1e-4)  # squared distances
    leads = lead < LEAST_LEAD**2
    i, j = i[leads], j[leads]
    return Matches(a.places[i], b.places[j], _wrapped(b.turns[j] - a.turns[i]), b.scales[j] / a.scales[i])


def motions(matches: Matches) -> list[Motion]:
    """At most MOST_MOTIONS, each of those that the ones before it left over."""
    a, b = matches.a.double(), matches.b.double()
    left = torch.arange(len(a))
    generator = torch.Generator().manual_seed(SEED)
    found: list[Motion] = []
    while len(found) < MOST_MOTIONS and len(left) >= LEAST_CELLS:
        first = _consensus(matches, left, generator)
        matrix = _refined(first, a[left], b[left])
        error = (moved(matrix, a[left]) - b[left]).norm(dim=1)
        held = left[error < TOLERANCE_PX]
        if spread(a[held], FINE_CELL_PX) < LEAST_CELLS:
            break
        found.append(Motion(matrix, a[held], b[held]))
        left = left[error > 2 * TOLERANCE_PX]
    return found


def moved(matrix: Tensor, places: Tensor) -> Tensor:
    """[3, 3], [..., 2] -> [..., 2]."""
    x, y, w = (places @ matrix[:, :2].T + matrix[:, 2]).unbind(-1)
    return torch.stack((x / w, y / w), -1)


def spread(places: Tensor, cell_px: float) -> int:
    """In how many cells of a grid the places lie."""
    return len(torch.unique((places / cell_px).floor(), dim=0))


def blurred(x: Tensor, sigma_px: float) -> Tensor:
    """[B, C, H, W], by a Gaussian; the edges go on outside. Added up shift by shift: a convolution of so few channels
    takes three to ten times as long on a CPU."""
    reach = int(3 * sigma_px + 0.5)
    window = torch.exp(-torch.arange(reach + 1, dtype=torch.float64).square() / (2 * sigma_px**2))
    middle, *beside = (window / (2 * window.sum() - window[0])).tolist()
    for axis, edges in ((-1, (reach, reach, 0, 0)), (-2, (0, 0, reach, reach))):
        wide, length = F.pad(x, edges, mode="replicate"), x.shape[axis]
        x = wide.narrow(axis, reach, length) * middle
        for k, weight in enumerate(beside, 1):
            for start in (reach - k, reach + k):
                x.add_(wide.narrow(axis, start, length), alpha=weight)
    return x


# Corners


def _corners(picture: Tensor) -> _Corners:
    """[1, 3, H, W]"""
    height, width = picture.shape[-2:]
    parts: list[_Corners] = []
    for scale in SCALES:
        size = round(height / scale), round(width / scale)
        if min(size) <= 2 * MARGIN_PX + 1:
            break
        small = F.interpolate(picture, size=size, mode="bilinear", antialias=True) if scale > 1 else picture
        parts.append(_corners_of_scale(small, scale, picture.new_tensor((width / size[1], height / size[0]))))
    if not parts:
        return _Corners(*(torch.zeros(0, *shape) for shape in ((2,), (), (), (3 * PATCH_SIDE**2,))))
    columns = zip(*((part.places, part.turns, part.scales, part.looks) for part in parts), strict=True)
    return _Corners(*(torch.cat(column) for column in columns))


def _corners_of_scale(picture: Tensor, scale: float, pixel: Tensor) -> _Corners:
    """`pixel`, [2], is the width and height of one of its pixels in those of the whole picture."""
    height, width = picture.shape[-2:]
    grey = picture.mean(1, keepdim=True)
    x, y = _strongest(_corner_strength(grey), max(LEAST_IN_CELL, round(MOST_IN_CELL / scale)))
    column, row = x.round().long(), y.round().long()
    slope_x, slope_y = _slopes(blurred(grey, 3.0))
    turn = torch.atan2(slope_y[0, 0, row, column], slope_x[0, 0, row, column])
    steps = (torch.arange(PATCH_SIDE) - (PATCH_SIDE - 1) / 2) * PATCH_STEP_PX
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    at = torch.stack((x[:, None, None] + cos * across - sin * down, y[:, None, None] + sin * across + cos * down), -1)
    grid = 2 * (at + 0.5) / at.new_tensor((width, height)) - 1
    sampled = F.grid_sample(
        blurred(picture, 1.2), grid.flatten(1, 2)[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    looks = sampled[0].permute(1, 2, 0)  # [N, 81, 3]
    looks = (looks - looks.mean(1, keepdim=True)).flatten(1)
    contrast = looks.norm(dim=1)
    kept = contrast > LEAST_CONTRAST
    places = (torch.stack((x, y), 1) + 0.5) * pixel
    looks = looks / contrast.clamp(min=1e-6)[:, None]
    return _Corners(places[kept], turn[kept], torch.full_like(turn, scale)[kept], looks[kept])


def _corner_strength(grey: Tensor) -> Tensor:
    """[1, 1, H, W] -> [H, W]: determinant over trace of the structure tensor."""
    x, y = _slopes(blurred(grey, 1.0))
    xx, xy, yy = blurred(torch.cat((x * x, x * y, y * y), 1), 1.5)[0]
    return (xx * yy - xy * xy) / (xx + yy + 1e-6)


def _strongest(strength: Tensor, most_in_cell: int) -> tuple[Tensor, Tensor]:
    """x and y, to a fraction of a pixel, of peaks: at most so many in each cell."""
    height, width = strength.shape
    peak = (strength == widened(strength[None, None], PEAK_REACH_PX)[0, 0]) & (strength > LEAST_CORNER)
    inner = torch.zeros_like(peak)
    inner[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = True
    y, x = torch.nonzero(peak & inner, as_tuple=True)
    order = strength[y, x].argsort(descending=True, stable=True)
    y, x = y[order], x[order]
    cell = (y * DOWN // height) * ACROSS + x * ACROSS // width
    by_cell = cell.argsort(stable=True)
    counts = torch.bincount(cell, minlength=ACROSS * DOWN)
    rank = torch.arange(len(cell)) - (counts.cumsum(0) - counts)[cell[by_cell]]
    chosen = by_cell[rank < most_in_cell]
    y, x = y[chosen], x[chosen]
    here = strength[y, x]
    across = _vertex(strength[y, x - 1], here, strength[y, x + 1])
    down = _vertex(strength[y - 1, x], here, strength[y + 1, x])
    return x + across, y + down


def _vertex(before: Tensor, here: Tensor, after: Tensor) -> Tensor:
    """Of the parabola through three neighbours, from the middle one: -0.49 to 0.49."""
    return ((before - after) / (2 * (before - 2 * here + after) - 1e-12)).clamp(-0.49, 0.49)


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """[B, 1, H, W] -> its change to the right and downwards."""
    across = F.pad(x, (1, 1, 0, 0), mode="replicate")
    down = F.pad(x, (0, 0, 1, 1), mode="replicate")
    return (across[..., 2:] - across[..., :-2]) / 2, (down[..., 2:, :] - down[..., :-2, :]) / 2


# Motions


def _consensus(matches: Matches, left: Tensor, generator: torch.Generator) -> Tensor:
    """The similarity, or plain shift, that most of the matches `left` follow: [3, 3]."""
    a, b, turn, size = matches.a[left], matches.b[left], matches.turn[left], matches.size[left].log()
    i, j = torch.randint(len(left), (2, DRAWS), generator=generator)
    apart_a, apart_b = torch.view_as_complex(a[j] - a[i]), torch.view_as_complex(b[j] - b[i])
    z = apart_b / torch.where(apart_a == 0, 1, apart_a)  # how the line between two matches is turned and stretched
    log_size = z.abs().clamp(min=1e-6).log()
    fits = (apart_a.abs() > 8) & (log_size.abs() < torch.tensor(MOST_SIZE).log())
    for k in (i, j):
        fits &= _wrapped(z.angle() - turn[k]).abs() < TURN_TOLERANCE
        fits &= (log_size - size[k]).abs() < SIZE_TOLERANCE
    z = torch.cat((z[fits], torch.ones(len(left), dtype=z.dtype)))
    i = torch.cat((i[fits], torch.arange(len(left))))
    cos, sin = z.real[:, None], z.imag[:, None]
    shift_x = b[i, :1] - cos * a[i, :1] + sin * a[i, 1:]
    shift_y = b[i, 1:] - sin * a[i, :1] - cos * a[i, 1:]
    judges = torch.randperm(len(left), generator=generator)[:JUDGES]
    (x, y), (u, v) = a[judges].T, b[judges].T
    off_x, off_y = cos * x - sin * y + shift_x - u, sin * x + cos * y + shift_y - v  # [draws, judges]
    votes = (1 - (off_x.square() + off_y.square()) / TOLERANCE_PX**2).clamp(min=0).sum(1)
    best = votes.argmax()
    c, s, u, v = (float(k[best]) for k in (cos, sin, shift_x, shift_y))
    return torch.tensor([[c, -s, u], [s, c, v], [0, 0, 1]], dtype=torch.float64)


def _refined(matrix: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Fitted to those that follow it, again and again, by the richest motion that enough of them fix."""
    stages = (
        (_similarity, LEAST_CELLS, 0, 2.0),
        (_similarity, LEAST_CELLS, 0, 1.0),
        (_affinity, FOR_AFFINE, AFFINE_SPREAD_PX, 1.3),
        (_affinity, FOR_AFFINE, AFFINE_SPREAD_PX, 1.3),
        (_homography, FOR_HOMOGRAPHY, HOMOGRAPHY_SPREAD_PX, 1.3),
        (_homography, FOR_HOMOGRAPHY, HOMOGRAPHY_SPREAD_PX, 1.0),
    )
    for fit, least, least_spread_px, tolerance in stages:
        error = (moved(matrix, a) - b).norm(dim=1) / (tolerance * TOLERANCE_PX)
        weight = (1 - error.square()).clamp(min=0).square()
        held = weight > 0
        if held.sum() < least:
            break
        p = a[held]
        if _narrowest_px(p) < least_spread_px:
            break
        matrix = fit(p, b[held], weight[held])
    return matrix


def _narrowest_px(places: Tensor) -> float:
    """How far the places spread in the direction in which they spread least: root mean square."""
    off = places - places.mean(0)
    return (
        torch.linalg.eigvalsh(_products(off, off, torch.ones_like(off[:, 0])) / len(off))[0].clamp(min=0).sqrt().item()
    )


def _similarity(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    z, y = torch.view_as_complex(a.contiguous()), torch.view_as_complex(b.contiguous())
    weight = weight / weight.sum()
    middle_z, middle_y = (weight * z).sum(), (weight * y).sum()
    from_z = z - middle_z
    turn = (weight * from_z.conj() * (y - middle_y)).sum() / ((weight * from_z.abs().square()).sum() + 1e-9)
    shift = middle_y - turn * middle_z
    c, s, u, v = (float(k) for k in (turn.real, turn.imag, shift.real, shift.imag))
    return torch.tensor([[c, -s, u], [s, c, v], [0, 0, 1]], dtype=torch.float64)


def _affinity(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    from_a, from_b = _normalising(a), _normalising(b)
    x = torch.cat((moved(from_a, a), torch.ones_like(a[:, :1])), 1)
    rows = torch.linalg.solve(_products(x, x, weight), _products(x, moved(from_b, b), weight)).T
    return torch.linalg.inv(from_b) @ torch.cat((rows, rows.new_tensor([[0, 0, 1]]))) @ from_a


def _homography(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Direct linear transform of places that were brought to middle 0 and mean distance sqrt 2."""
    from_a, from_b = _normalising(a), _normalising(b)
    (x, y), (u, v) = moved(from_a, a).T, moved(from_b, b).T
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows = torch.cat(
        (
            torch.stack((x, y, one, zero, zero, zero, -u * x, -u * y, -u), 1),
            torch.stack((zero, zero, zero, x, y, one, -v * x, -v * y, -v), 1),
        )
    )
    _, vectors = torch.linalg.eigh(_products(rows, rows, weight.repeat(2)))
    matrix = torch.linalg.inv(from_b) @ vectors[:, 0].view(3, 3) @ from_a
    return matrix / matrix[2, 2]


def _products(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """[N, i], [N, j] -> [i, j]: weighted sums over N, which come out the same each time. What LAPACK makes of long
    matrices does not."""
    return (a[:, :, None] * b[:, None, :] * weight[:, None, None]).sum(0)


def _normalising(places: Tensor) -> Tensor:
    middle = places.mean(0)
    k = 2**0.5 / ((places - middle).square().sum(1).sqrt().mean() + 1e-9)
    return torch.stack(
        (torch.stack((k, 0 * k, -k * middle[0])), torch.stack((0 * k, k, -k * middle[1])), places.new_tensor((0, 0, 1)))
    )


def _wrapped(angle: Tensor) -> Tensor:
    """Radians, -pi to pi."""
    return torch.atan2(angle.sin(), angle.cos())
