"""The correction takes out what is known to be wrong, no more, and passes from one keyframe to the next."""

from __future__ import annotations

import torch

from sfserver.engine.seam import CELL_PX, Seam, low_frequencies


def constant(value: float, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.full((3, height, width), value)


def seam_of(errors: dict[int, torch.Tensor]) -> Seam:
    seam = Seam()
    seam.learn(errors)
    return seam


def corrections(seam: Seam, frames: int) -> list[float]:
    return seam.correct(0, torch.zeros(frames, 3, 64, 96))[:, 0, 0, 0].tolist()


def test_colour_shift_at_a_keyframe_is_removed() -> None:
    picture = torch.rand(3, 64, 96) - 0.5
    reconstruction = picture + 0.1
    seam = seam_of({0: picture - reconstruction})
    torch.testing.assert_close(seam.correct(0, reconstruction[None])[0], picture, atol=1e-5, rtol=0)


def test_correction_passes_from_keyframe_to_keyframe() -> None:
    seam = seam_of({2: constant(0.0), 6: constant(0.4)})
    expected = torch.tensor([0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.4])
    torch.testing.assert_close(torch.tensor(corrections(seam, 8)), expected)


def test_chunks_are_corrected_like_the_whole() -> None:
    seam = seam_of({0: constant(0.1), 8: constant(-0.3)})
    pixels = torch.rand(9, 3, 64, 96) - 0.5
    assert torch.equal(torch.cat([seam.correct(0, pixels[:5]), seam.correct(5, pixels[5:])]), seam.correct(0, pixels))


def test_detail_is_left_alone() -> None:
    checkerboard = (torch.arange(96)[None] + torch.arange(64)[:, None]) % 2 * 2.0 - 1
    assert low_frequencies(checkerboard.expand(3, -1, -1)).abs().max() < 1e-6
    assert CELL_PX > 8, "coarser than what a latent pixel spans"


def test_keyframes_may_be_learnt_one_by_one_and_in_any_order() -> None:
    errors = {0: constant(0.1), 4: constant(-0.3), 8: constant(0.2)}
    seam = Seam()
    for at in (8, 0, 4):
        seam.learn({at: errors[at]})
    assert corrections(seam, 12) == corrections(seam_of(errors), 12)


def test_no_keyframe_errors_no_correction() -> None:
    pixels = torch.rand(2, 3, 64, 96)
    assert Seam().correct(0, pixels) is pixels


def test_corrected_pixels_stay_within_bounds() -> None:
    assert seam_of({0: constant(0.5)}).correct(0, torch.ones(1, 3, 64, 96)).max() == 1


def test_pictures_smaller_than_a_cell_have_one() -> None:
    assert torch.equal(low_frequencies(constant(0.25, 16, 16)), constant(0.25, 16, 16))
