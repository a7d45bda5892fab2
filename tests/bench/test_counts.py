"""What a layer asks of torch's dispatcher is few calls and no wait, and the counter knows a kernel from a view."""

from __future__ import annotations

import torch

from sfserver.bench import counts


def test_a_layer_asks_for_few_calls_and_never_waits() -> None:
    calls, kernels, waits = counts.per_layer()
    assert calls <= counts.CALLS
    assert kernels <= counts.KERNELS
    assert waits == 0


def test_the_controls_views_are_no_kernels_writing_is_and_a_wait_is_seen() -> None:
    with counts.Calls() as counter:
        x = torch.zeros(4, 4)
        x.view(16).unsqueeze(0).t()
        assert not set(counter.kernels) - {"aten::zeros", "aten::zero_"}
        before = counter.kernels.total()
        x.add_(1)
        x @ x
        assert counter.kernels.total() - before == 2
        assert counter.waits == 0
        x.sum().item()
    assert counter.waits == 1
