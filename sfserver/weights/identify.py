"""What a file seems to be, from the names and shapes of its tensors, and the sizes of the network in it.

Works on names that `dialects` has already made ours. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .files import Shapes, WeightsError

Config = dict[str, Any]
"""Fields of a network's config class."""

HEADS_OF_DIM = {1536: 12, 5120: 40}
"""Wan 2.1's 1.3B and 14B. No tensor's shape tells the number of heads."""
LAYERS_OF_DIM = {1536: 30, 5120: 40}
"""For a VACE branch in a file of its own, which does not tell how many layers the transformer has."""
CLEAN_MARK = "memory_"
"""In the names of a second transformer's tensors, which lies in one file with the first (Self Gradient Forcing+)."""
_MODEL_OF_DIM = {1536: "1.3B", 3072: "5B", 5120: "14B"}
_LATENT_CHANNELS = 16


def roles_in(shapes: Shapes) -> tuple[str, ...]:
    """The roles that a file's tensors can play, in the order of the manifest; empty where there is none."""
    marks = {
        "dit": "patch_embedding.weight",
        "clean": f"{CLEAN_MARK}patch_embedding.weight",
        "vace": "vace_patch_embedding.weight",
        "vae": "decoder.conv1.weight",
        "tae": "decoder.1.weight",
        "text": "block.0.layer.0.SelfAttention.q.weight",
    }
    return tuple(role for role, mark in marks.items() if mark in shapes)


def foreign(shapes: Shapes) -> str | None:
    """For a model that resembles ours and is not: what it seems to be, and what to take instead."""
    patch, post = shapes.get("patch_embedding.weight", ()), shapes.get("conv2.weight", ())
    if len(patch) == 5 and patch[1] != _LATENT_CHANNELS:
        if patch[1] == 48:
            return "a transformer of Wan 2.2 TI2V-5B (48 latent channels); take one of Wan 2.1"
        return f"an image-to-video (I2V) or control checkpoint ({patch[1]} input channels); take the T2V one (16)"
    if any(name.startswith(("img_emb.", "blocks.0.cross_attn.k_img.")) for name in shapes):
        return "an image-to-video (I2V) checkpoint (it has an image encoder's branch); take the T2V one"
    if "decoder.upsamples.0.upsamples.0.residual.0.gamma" in shapes or (len(post) == 5 and post[0] != _LATENT_CHANNELS):
        return "a Wan 2.2 VAE (48 latent channels); take Wan2.1_VAE"
    return None


def guess(shapes: Shapes) -> str:
    """What a file that plays none of our roles seems to be."""
    kinds = (
        (r"lora_(up|down|[AB])\b", "a LoRA; give it together with the transformer that it changes"),
        (r"^(double_blocks|single_blocks|transformer_blocks)\.", "a transformer of another family than Wan"),
        (r"^(input_blocks|down_blocks|first_stage_model)\.|cond_stage_model", "a Stable Diffusion checkpoint"),
        (r"^(text_model|visual|vision_model)\.", "a CLIP encoder, which no text-to-video model of Wan 2.1 has"),
        (r"^(decoder|encoder)\.", "an autoencoder of another family than Wan 2.1"),
    )
    for pattern, kind in kinds:
        if any(re.search(pattern, name) for name in shapes):
            return kind
    return f"nothing we know; its first tensors are {', '.join(sorted(shapes)[:3]) or 'none at all'}"


_GIVEN = {
    "num_heads": "heads",
    "num_attention_heads": "heads",
    "num_layers": "layers",
    "vace_layers": "vace_layers",
    "text_len": "text_len",
    "text_dim": "text_dim",
    "freq_dim": "freq_dim",
    "eps": "eps",
}
"""What a config.json, official or of diffusers, says that a transformer's tensors do not, and our name for it."""


def given_sizes(config: object) -> Config:
    """The part of a parsed config.json that we need, under our names."""
    if not isinstance(config, Mapping):
        return {}
    return {ours: config[theirs] for theirs, ours in _GIVEN.items() if config.get(theirs) is not None}


def sizes_of(role: str, shapes: Shapes, given: Mapping[str, Any], source_name: str) -> Config:
    """The network's sizes. `given` is what `given_sizes` made of a config.json beside the file.

    Raises WeightsError where neither says enough.
    """
    if role in ("dit", "clean", "vace"):
        _check_given(given, source_name)
    try:
        return _SIZES[role](shapes, given, source_name)
    except WeightsError:
        raise
    except KeyError as error:
        raise WeightsError(f"{source_name}: resembles a {role} but lacks {error}; it is incomplete") from None
    except (IndexError, ValueError, ZeroDivisionError):
        raise WeightsError(f"{source_name}: resembles a {role} but its tensors have other shapes; it is none") from None


def _check_given(given: Mapping[str, Any], source_name: str) -> None:
    """Types alone: whether the sizes make a network is seen when one is built."""
    for name, value in given.items():
        if name == "vace_layers":
            kind, right = "a list of layers", isinstance(value, list) and all(type(layer) is int for layer in value)
        elif name == "eps":
            kind, right = "a number above 0", type(value) in (int, float) and value > 0
        else:
            kind, right = "a whole number above 0", type(value) is int and value > 0
        if not right:
            theirs = " or ".join(key for key, ours in _GIVEN.items() if ours == name)
            raise WeightsError(
                f"{source_name}: the config.json beside it gives {value!r} for {theirs}, which is not {kind}; take the "
                "one that was published with the model"
            )


def _dit_sizes(shapes: Shapes, given: Mapping[str, Any], source_name: str) -> Config:
    dim = shapes["patch_embedding.weight"][0]
    return {
        "dim": dim,
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        "layers": _count(shapes, "blocks"),
        "heads": _heads(dim, given, source_name),
        "text_dim": shapes["text_embedding.0.weight"][1],
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "in_channels": shapes["patch_embedding.weight"][1],
        "out_channels": shapes["head.head.weight"][0] // 4,
        **{name: given[name] for name in ("text_len", "eps") if name in given},
    }


def _vace_sizes(shapes: Shapes, given: Mapping[str, Any], source_name: str) -> Config:
    dim = shapes["vace_patch_embedding.weight"][0]
    hints = _count(shapes, "vace_blocks")
    whole = _dit_sizes(shapes, given, source_name) if "patch_embedding.weight" in shapes else {}
    layers = whole.get("layers") or given.get("layers") or LAYERS_OF_DIM.get(dim)
    if not layers or layers < hints:
        raise WeightsError(
            f"{source_name}: cannot tell how many layers the transformer has; put its config.json beside it"
        )
    every = -(-layers // hints)
    return {
        **{name: given[name] for name in ("text_len", "text_dim", "freq_dim", "eps") if name in given},
        **whole,
        "dim": dim,
        "ffn_dim": shapes["vace_blocks.0.ffn.0.weight"][0],
        "layers": layers,
        "heads": _heads(dim, given, source_name),
        "vace_layers": list(given.get("vace_layers") or range(0, layers, every)),
        "vace_in_channels": shapes["vace_patch_embedding.weight"][1],
    }


def _heads(dim: int, given: Mapping[str, Any], source_name: str) -> int:
    heads = given.get("heads") or HEADS_OF_DIM.get(dim)
    if not heads:
        known = " or ".join(map(str, HEADS_OF_DIM))
        raise WeightsError(
            f"{source_name}: width {dim} is not {known}; put the model's config.json beside it for its heads"
        )
    return heads


def _vae_sizes(shapes: Shapes, given: Mapping[str, Any], source_name: str) -> Config:
    return {"dim": shapes["encoder.conv1.weight"][0], "z_channels": shapes["decoder.conv1.weight"][1]}


def _tae_sizes(shapes: Shapes, given: Mapping[str, Any], source_name: str) -> Config:
    return {
        "z_channels": shapes["decoder.1.weight"][1],
        "decoder_widths": [shapes[f"decoder.{i}.weight"][0] for i in (1, 8, 14, 20)],
        "encoder_width": shapes["encoder.0.weight"][0],
        # LightX2V's sibling has the very same tensors, but was made for latents in the VAE's own scale.
        "vae_scale": "lighttae" in source_name.lower(),
    }


def _text_sizes(shapes: Shapes, given: Mapping[str, Any], source_name: str) -> Config:
    first = "block.0.layer.0.SelfAttention"
    buckets, heads = shapes[f"{first}.relative_attention_bias.weight"]
    return {
        "vocab_size": shapes["embed_tokens.weight"][0],
        "dim": shapes["embed_tokens.weight"][1],
        "ffn_dim": shapes["block.0.layer.1.DenseReluDense.wi_0.weight"][0],
        "heads": heads,
        "head_dim": shapes[f"{first}.q.weight"][0] // heads,
        "layers": _count(shapes, "block"),
        "position_buckets": buckets,
    }


_SIZES: dict[str, Callable[[Shapes, Mapping[str, Any], str], Config]] = {
    "dit": _dit_sizes,
    "clean": _dit_sizes,
    "vace": _vace_sizes,
    "vae": _vae_sizes,
    "tae": _tae_sizes,
    "text": _text_sizes,
}


def _count(shapes: Shapes, stem: str) -> int:
    """How many blocks there are: the file is asked, not the model's name."""
    return len({match[1] for name in shapes if (match := re.match(rf"{stem}\.(\d+)\.", name))})


def compared(role: str, found: Shapes, expected: Shapes) -> str | None:
    """What is missing, unexpected or of another shape, summarised in one clause; None where all fits."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    other = [name for name in expected if name in found and found[name] != expected[name]]
    clauses = []
    if missing:
        clauses.append(f"{len(missing)} of {len(expected)} tensors are missing, the first is {missing[0]}")
    if unexpected:
        clauses.append(f"{len(unexpected)} are unexpected, the first is {unexpected[0]}")
    if other:
        first = other[0]
        clauses.append(f"{len(other)} have another shape, the first is {first}, {found[first]} for {expected[first]}")
    return f"does not fit a {role}: {'; '.join(clauses)}" if clauses else None


def model_name(dim: Any) -> str:
    """What people call a transformer of this width."""
    return _MODEL_OF_DIM.get(dim, f"{dim} wide")
