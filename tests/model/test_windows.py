"""Means and maxima of squares are those of pooling, whatever the square."""

import pytest
import torch
import torch.nn.functional as F

from sfserver.model.windows import averaged, widened


@pytest.mark.parametrize("reach", [1, 2, 4, 6, 12])
@pytest.mark.parametrize("size", [(30, 41), (2, 3), (1, 1)])
def test_they_are_those_of_pooling(reach, size):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) - 0.5
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    side = 2 * reach + 1
    assert torch.allclose(averaged(x, reach), F.avg_pool2d(padded, side, 1), atol=1e-6)
    assert torch.equal(widened(x, reach), F.max_pool2d(padded, side, 1))
