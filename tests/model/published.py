"""Toy-size weights in the layouts that people publish: the networks of `networks` under other names, in other files."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from networks import random_weights, toy_dit, toy_vace
from safetensors.torch import save_file
from torch import Tensor

from sfserver.model.config import TOY_VACE
from sfserver.model.tae import Tae, TaeConfig
from sfserver.model.text import TextConfig, umt5_stack
from sfserver.model.vae import VaeConfig, WanVae

Tensors = Mapping[str, Tensor]

OFFICIAL_CONFIG = {
    "_class_name": "VaceWanModel",
    "dim": TOY_VACE.dim,
    "ffn_dim": TOY_VACE.ffn_dim,
    "num_heads": TOY_VACE.heads,
    "num_layers": TOY_VACE.layers,
    "freq_dim": TOY_VACE.freq_dim,
    "text_dim": TOY_VACE.text_dim,
    "text_len": TOY_VACE.text_len,
    "vace_layers": list(TOY_VACE.vace_layers),
    "eps": TOY_VACE.eps,
}
"""What lies beside a checkpoint in an official repository."""
TOY_TEXT = TextConfig(vocab_size=64, dim=TOY_VACE.text_dim, ffn_dim=48, heads=2, head_dim=8, layers=2)


def dit_tensors() -> dict[str, Tensor]:
    return dict(toy_dit().state_dict())


def vace_tensors() -> dict[str, Tensor]:
    return dict(toy_vace().state_dict())


@cache
def vae_tensors() -> Tensors:
    return random_weights(WanVae(VaeConfig(dim=6)), 3).state_dict()


@cache
def tae_tensors() -> Tensors:
    return random_weights(Tae(TaeConfig(decoder_widths=(16, 12, 8, 8), encoder_width=8)), 4).state_dict()


@cache
def text_tensors() -> Tensors:
    """Under transformers' names, as the stack has them."""
    return random_weights(umt5_stack(TOY_TEXT), 5).state_dict()


def official_text_tensors() -> dict[str, Tensor]:
    """The text encoder under the names of `models_t5_umt5-xxl-enc-bf16.pth`."""
    official = {
        "layer.0.layer_norm": "norm1",
        "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
        "layer.1.layer_norm": "norm2",
        "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
        "layer.1.DenseReluDense.wi_1": "ffn.fc1",
        "layer.1.DenseReluDense.wo": "ffn.fc2",
    }
    official |= {f"layer.0.SelfAttention.{x}": f"attn.{x}" for x in "qkvo"}
    tops = {"embed_tokens.weight": "token_embedding.weight", "final_layer_norm.weight": "norm.weight"}
    renamed = {}
    for name, value in text_tensors().items():
        block = re.match(r"block\.(\d+)\.(.+)\.weight", name)
        renamed[f"blocks.{block[1]}.{official[block[2]]}.weight" if block else tops[name]] = value
    return renamed


@cache
def tokenizer_bytes() -> bytes:
    """A SentencePiece model with the special pieces where umt5-xxl has them."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a cat walks over the hill while the dog sleeps in the sun"] * 20),
        model_writer=model,
        vocab_size=50,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=3,
    )
    return model.getvalue()


def save(path: Path, tensors: Tensors) -> Path:
    """A safetensors file; the folder is made, tensors that share memory are told apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)
    return path


def prefixed(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def write_config(folder: Path, config: Mapping[str, object] = OFFICIAL_CONFIG) -> None:
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def write_official_repository(folder: Path) -> Path:
    """A model of toy size, laid out as Wan-AI's repositories are: everything that a preset with VACE needs."""
    save(folder / "diffusion_pytorch_model.safetensors", dit_tensors() | vace_tensors())
    write_config(folder)
    torch.save(dict(vae_tensors()), folder / "Wan2.1_VAE.pth")
    torch.save(official_text_tensors(), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    tokenizer = folder / "google" / "umt5-xxl" / "spiece.model"
    tokenizer.parent.mkdir(parents=True)
    tokenizer.write_bytes(tokenizer_bytes())
    return folder
