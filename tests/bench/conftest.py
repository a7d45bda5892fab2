"""Two cores are shared with other tests: one thread each. And a checkout of the published pipeline in a few lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

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
