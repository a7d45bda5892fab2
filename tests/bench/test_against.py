"""The published pipeline is driven as its checkout wants to be. Here one of a few lines stands in its place, with the
names, arguments and shapes of the published one; that one itself has not been run here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sfserver.bench.against import compare, published
from sfserver.cli import USER_ERROR, main
from sfserver.errors import UserError
from sfserver.model.config import TOY

CPU = torch.device("cpu")
CHECKOUT = {
    "wan/modules/causal_model.py": """
import torch
class CausalWanModel(torch.nn.Module):
    def __init__(self, dim=2048, ffn_dim=8192, num_heads=16, num_layers=32, local_attn_size=-1, sink_size=0):
        super().__init__()
        self.sizes, self.local_attn_size, self.passes = (dim, ffn_dim, num_heads, num_layers), local_attn_size, []
        self.weight = torch.nn.Parameter(torch.zeros(4, 4))
    @classmethod
    def from_pretrained(cls, path, **options):
        raise FileNotFoundError(path)
""",
    "wan/modules/vae.py": """
import torch
class WanVAE_(torch.nn.Module):
    def __init__(self, dim, z_dim, dim_mult, num_res_blocks, attn_scales, temperal_downsample, dropout):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(z_dim, 3))
def _video_vae(pretrained_path, z_dim):
    raise FileNotFoundError(pretrained_path)
""",
    "utils/wan_wrapper.py": """
import torch
from wan.modules.causal_model import CausalWanModel
from wan.modules.vae import _video_vae
class WanVAEWrapper(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = _video_vae(pretrained_path="wan_models/Wan2.1_VAE.pth", z_dim=16).eval()
class WanDiffusionWrapper(torch.nn.Module):
    def __init__(self, model_name="Wan2.1-T2V-1.3B", timestep_shift=8.0, is_causal=False, local_attn_size=-1):
        super().__init__()
        self.shift = timestep_shift
        self.model = CausalWanModel.from_pretrained("wan_models/", local_attn_size=local_attn_size, sink_size=0)
    def forward(self, x, conditional_dict, t):
        self.model.passes.append((tuple(x.shape), float(t)))
        return x + conditional_dict["prompt_embeds"].mean() * self.model.weight.sum()
""",
    "pipeline/causal_inference.py": """
import torch
class CausalInferencePipeline(torch.nn.Module):
    def __init__(self, args, device, generator=None, text_encoder=None, vae=None):
        super().__init__()
        self.args, self.generator, self.text_encoder, self.vae = args, generator, text_encoder, vae
    def inference(self, noise, text_prompts):
        print("current_timestep")
        told = self.text_encoder(text_prompts=text_prompts)
        blocks = []
        for x in noise.split(self.args.num_frame_per_block, dim=1):
            for t in [*self.args.denoising_step_list, self.args.context_noise]:
                x = self.generator(x, told, t)
            blocks.append(x)
        return torch.einsum("bfchw,cr->bfrhw", torch.cat(blocks, 1), self.vae.model.weight)
""",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    before = set(sys.modules)
    for name, code in CHECKOUT.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("wan", "utils", "pipeline"):
            del sys.modules[name]


def test_the_published_pipeline_makes_a_clip_with_random_weights_of_our_sizes(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = published(checkout, TOY, CPU, torch.float32)
    pixels = theirs.clip((1, 6, 16, 4, 4))
    model = theirs.pipeline.generator.model
    assert model.sizes == (TOY.dim, TOY.ffn_dim, TOY.heads, TOY.layers)
    assert model.weight.std() > 0, "drawn, and not loaded"
    assert [t for _, t in model.passes] == 2 * [1000, 750, 500, 250, 0]
    assert pixels.shape == (1, 6, 3, 4, 4)
    assert theirs.pipeline.generator.shift == 5.0
    assert capsys.readouterr().out == "", "what it prints is not ours"
    assert str(checkout) not in sys.path


def test_all_take_turns_and_the_cold_round_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    order: list[str] = []

    def taking(seconds: float, name: str) -> None:
        clock[0] += seconds if len(order) >= 3 else 1000
        order.append(name)

    def clip(shape: tuple[int, ...]) -> torch.Tensor:
        taking(6.0, "theirs")
        return torch.zeros(1)

    timed = SimpleNamespace(clip=clip)
    ours = {"G1": lambda: taking(2.0, "tae"), "G3": lambda: taking(4.0, "wan")}
    measures = compare(timed, (1, 6, 16, 4, 4), ours, lambda: None, pairs=3)  # type: ignore[arg-type]
    assert order == ["theirs", "tae", "wan"] * 4
    assert [(m.goal, m.value) for m in measures] == [("G1", 3.0), ("G3", 1.5)]


def test_a_folder_that_is_no_checkout_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"is no checkout of Self-Forcing, it lacks pipeline/causal_inference\.py"):
        published(tmp_path, TOY, CPU, torch.float32)
    assert main(["bench", "--against", str(tmp_path)]) == USER_ERROR
    assert "give --gpu as well" in capsys.readouterr().err
