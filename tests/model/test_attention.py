"""The switch between attention kernels, as far as it shows without a GPU."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sfwire.errors import ErrorCode, RequestError
from torch import Tensor

from sfserver.config import load_config
from sfserver.engine import wan, wan_load
from sfserver.model import attention
from sfserver.model.attention import (
    Attend,
    Group,
    attend,
    attend_in_groups,
    attend_with_normaliser,
    choose_attention,
    kernel_preference,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def qkv(queries: int = 5, keys: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    q = torch.randn(1, queries, 3, 8)
    k, v = torch.randn(2, 1, keys, 3, 8)
    return q, k, v


def test_attend_is_softmax_of_scaled_products() -> None:
    q, k, v = qkv()
    weights = (torch.einsum("blnd,bknd->bnlk", q, k) / 8**0.5).softmax(-1)
    torch.testing.assert_close(attend(q, k, v), torch.einsum("bnlk,bknd->blnd", weights, v))


def test_order_of_keys_does_not_matter() -> None:
    q, k, v = qkv()
    shuffled = torch.randperm(k.shape[1])
    torch.testing.assert_close(attend(q, k[:, shuffled], v[:, shuffled]), attend(q, k, v))


def test_preference_changes_no_result_and_ends() -> None:
    q, k, v = qkv()
    with kernel_preference():
        preferred = attend(q, k, v)
    torch.testing.assert_close(preferred, attend(q, k, v))


def test_cpu_and_float32_use_torch_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lambda q, k, v: q)
    assert choose_attention("auto", CPU, torch.bfloat16) is attend
    assert choose_attention("auto", GPU, torch.float32) is attend
    assert choose_attention("sdpa", GPU, torch.bfloat16) is attend


@pytest.mark.parametrize("answer", [lambda q, k, v: attend(q, k, v), lambda q, k, v: (attend(q, k, v), None)])
def test_gpu_takes_flash_attention_where_it_is_installed(answer: Attend, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, answer)
    chosen = choose_attention("auto", GPU, torch.bfloat16)
    assert chosen is not attend
    q, k, v = qkv()
    assert torch.equal(chosen(q, k, v), attend(q, k, v))


BIASES = ((0.0,), (1.5, -2.0, 0.5), (-math.inf,), (3.0,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_in_groups_is_attention_with_biases_on_its_logits(dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in qkv(queries=6, keys=8))
    groups = [Group(slice(2 * i, 2 * i + 2), bias) for i, bias in enumerate(BIASES)]
    bias = torch.stack([torch.tensor(b).expand(3) for b in BIASES]).repeat_interleave(2, 0).repeat_interleave(2, 1).T
    logits = torch.einsum("blnd,bknd->bnlk", q.double(), k.double()) / 8**0.5 + bias
    expected = torch.einsum("bnlk,bknd->blnd", logits.softmax(-1), v.double())
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    answer = attend_in_groups(q, k, v, groups)
    assert answer.dtype == dtype
    torch.testing.assert_close(answer.double(), expected, atol=tolerance, rtol=tolerance)


def test_one_group_without_a_bias_is_attention() -> None:
    q, k, v = qkv()
    torch.testing.assert_close(attend_in_groups(q, k, v, [Group(slice(0, 7))]), attend(q, k, v))


def test_written_out_it_is_the_same_as_by_the_kernel() -> None:
    q, k, v = qkv()
    answer, normaliser = attention._attend_plainly(*(x.transpose(1, 2) for x in (q, k, v)))
    by_kernel = attend_with_normaliser(q, k, v)
    torch.testing.assert_close(answer.transpose(1, 2), by_kernel[0])
    torch.testing.assert_close(normaliser, by_kernel[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_of_a_gpu_answer_in_the_same_shapes(dtype: torch.dtype) -> None:
    """As far as that shows without one: their shapes, by torch's own account of them."""
    q, k, v = (torch.empty(1, n, 3, 16, dtype=dtype, device="meta") for n in (40, 72, 72))
    answer, normaliser = attend_with_normaliser(q, k, v)
    assert answer.shape == (1, 40, 3, 16)
    assert normaliser.shape == (1, 3, 40)


def test_asking_for_a_kernel_that_is_not_there_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: None)
    assert choose_attention("auto", GPU, torch.bfloat16) is attend
    with pytest.raises(ImportError, match="needs the package flash-attn"):
        choose_attention("flash", GPU, torch.bfloat16)


BROKEN = [
    "raise ImportError('undefined symbol: _ZN3c105Error')",
    "raise OSError('libcudart.so.11.0: cannot open shared object file')",
    "",  # a folder that was left behind, without flash_attn_func
]


@pytest.fixture(params=BROKEN, ids=["wrong symbols", "no library", "empty"])
def broken_flash(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """FlashAttention is found where modules are looked for, and is of no use."""
    (tmp_path / "flash_attn_interface.py").write_text(request.param)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn_interface", raising=False)
    yield
    sys.modules.pop("flash_attn_interface", None)


@pytest.mark.usefixtures("broken_flash")
def test_an_installation_that_cannot_be_used_is_passed_over_and_said(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_attention("auto", GPU, torch.bfloat16) is attend
    (record,) = caplog.records
    assert re.match(r"flash_attn_interface is installed but cannot be used \(.+\); torch's own", record.getMessage())
    with pytest.raises(
        ImportError, match=r"cannot be used \(.+\); install a flash-attn made for this torch, or choose"
    ):
        choose_attention("flash", GPU, torch.bfloat16)


def test_an_installation_that_can_be_used_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The control of the one above."""
    (tmp_path / "flash_attn_interface.py").write_text("def flash_attn_func(q, k, v): return q")
    monkeypatch.syspath_prepend(tmp_path)
    chosen = choose_attention("auto", GPU, torch.bfloat16)
    sys.modules.pop("flash_attn_interface")
    q, k, v = qkv()
    assert chosen(q, k, v) is q
    assert not caplog.records


def test_attention_in_8_bits_is_close_and_the_prompt_is_attended_to_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is played by the same arithmetic in int8 on a CPU: what is tested is how it is asked."""
    asked: list[dict[str, object]] = []

    def in_int8(x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True) / 127
        return (x / scale).round() * scale

    def sageattn(q: Tensor, k: Tensor, v: Tensor, **how: object) -> Tensor:
        asked.append(how)
        return attend(in_int8(q), in_int8(k), v)

    monkeypatch.setitem(sys.modules, "sageattention", SimpleNamespace(sageattn=sageattn))
    chosen = choose_attention("sage", GPU, torch.bfloat16)
    q, k, v = (torch.randn(1, n, 2, 64, generator=torch.Generator().manual_seed(n)) for n in (24, 72, 72))
    answer, exact = chosen(q, k, v), attend(q, k, v)
    assert 0 < (answer - exact).norm() / exact.norm() < 0.02
    assert asked == [{"tensor_layout": "NHD", "is_causal": False}]
    assert torch.equal(chosen(q, k[:, :9], v[:, :9]), attend(q, k[:, :9], v[:, :9]))
    assert len(asked) == 1
    assert choose_attention("auto", GPU, torch.bfloat16) is attend, "never unless it is asked for"


def test_attention_in_8_bits_that_cannot_be_had_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sageattention", None)
    with pytest.raises(ImportError, match=r"needs the package sageattention.*or take 'auto'"):
        choose_attention("sage", GPU, torch.bfloat16)
    for device, dtype in ((CPU, torch.bfloat16), (GPU, torch.float32)):
        with pytest.raises(ImportError, match="is for CUDA in 16 bits"):
            choose_attention("sage", device, dtype)
    with pytest.raises(RequestError, match="take 'auto'") as caught:
        wan_load._attention(load_config({"attention": "sage"}), CPU, torch.float32)
    assert caught.value.code is ErrorCode.ENGINE_UNAVAILABLE
    versions = {wan.describe(load_config({"attention": name}))[0].version for name in ("auto", "sage")}
    assert len(versions) == 2, "its pictures are others"


def install(monkeypatch: pytest.MonkeyPatch, function: Attend) -> None:
    """Make it seem that FlashAttention 2 is installed, and is `function`."""
    package = SimpleNamespace(flash_attn_func=function)
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: name == "flash_attn" or None)
    monkeypatch.setattr(attention.importlib, "import_module", lambda name: package)
