"""Rotations equal the complex products that they stand for, wherever a table is cut."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfserver.model.rope import RopeTable, axis_angles, pairs_per_axis, rotate


def test_pairs_of_wan_heads_are_22_21_21() -> None:
    assert pairs_per_axis(128) == (22, 21, 21)


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 60), count=st.integers(1, 3), rows=st.integers(1, 3), columns=st.integers(1, 4))
def test_rotation_equals_complex_product(start: int, count: int, rows: int, columns: int) -> None:
    table = RopeTable(16, latents=64, rows=rows, columns=columns)
    x = torch.randn(1, count * rows * columns, 2, 16)
    grid = torch.cartesian_prod(torch.arange(start, start + count), torch.arange(rows), torch.arange(columns))
    angles = torch.cat([axis_angles(grid[:, axis], pairs) for axis, pairs in enumerate(pairs_per_axis(16))], dim=-1)
    turned = (
        torch.view_as_complex(x.double().unflatten(-1, (-1, 2))) * torch.polar(angles.new_ones(()), angles)[:, None]
    )
    torch.testing.assert_close(rotate(x, table.at(start, count)), torch.view_as_real(turned).flatten(-2).float())


def test_gathered_rotation_is_that_of_each_latent() -> None:
    table = RopeTable(16, latents=9, rows=2, columns=2)
    x = torch.randn(1, 3 * 4, 2, 16)
    gathered = rotate(x, table.gather([7, 0, 3]))
    for i, position in enumerate((7, 0, 3)):
        own = slice(4 * i, 4 * i + 4)
        assert torch.equal(gathered[:, own], rotate(x[:, own], table.at(position, 1)))


def test_distance_alone_decides_the_product_of_query_and_key() -> None:
    table = RopeTable(16, latents=40, rows=1, columns=1)
    q, k = torch.randn(2, 1, 1, 1, 16).double()
    near = (rotate(q, table.at(5, 1)) * rotate(k, table.at(2, 1))).sum()
    far = (rotate(q, table.at(35, 1)) * rotate(k, table.at(32, 1))).sum()
    other = (rotate(q, table.at(36, 1)) * rotate(k, table.at(32, 1))).sum()
    torch.testing.assert_close(near, far, atol=1e-5, rtol=0)
    assert (near - other).abs() > 1e-3
