"""The names that one and the same tensor goes by in the files people publish, and the rules that make them ours.

Ours are those of the official Wan 2.1 checkpoints; the text encoder's are those of transformers' UMT5 stack. Only names
here: nothing imports torch. Each function takes one name and gives ours; names it has no rule for pass as they are, and
whoever compares them with a model's names finds the stranger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_TRAINING_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""Left in the middle of names by FSDP, activation checkpointing and torch.compile."""
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.")
"""In front of names in ComfyUI files and in Self Forcing's, whose generator wraps the transformer."""


def unwrapped(name: str) -> str:
    """Without what training wrappers and other programs' modules put around it."""
    for wrapper in _TRAINING_WRAPPERS:
        name = name.replace(wrapper, "")
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _rules(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


_DIT_FROM_DIFFUSERS = _rules(
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
    (r"(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
    (r"(blocks\.\d+)\.proj_in\.", r"\1.before_proj."),
    (r"(blocks\.\d+)\.proj_out\.", r"\1.after_proj."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.norm3."),  # diffusers counts norms in order of use, Wan in order of definition
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
)

_DECODER_LAYERS_PER_LEVEL = 4
"""Three residual blocks and what enlarges the picture: diffusers numbers them in two steps, Wan in one."""

_VAE_FROM_DIFFUSERS = _rules(
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.down_blocks\.", ".downsamples."),
    (r"(\.\d+)\.norm1\.", r"\1.residual.0."),
    (r"(\.\d+)\.conv1\.", r"\1.residual.2."),
    (r"(\.\d+)\.norm2\.", r"\1.residual.3."),
    (r"(\.\d+)\.conv2\.", r"\1.residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
)
_VAE_UP_BLOCK = re.compile(r"\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.")

_TEXT_FROM_OFFICIAL = _rules(
    (r"^token_embedding\.", "embed_tokens."),
    (r"^norm\.", "final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"block.\1.layer.0.SelfAttention.\2."),
    (r"^blocks\.(\d+)\.pos_embedding\.embedding\.", r"block.\1.layer.0.SelfAttention.relative_attention_bias."),
    (r"^blocks\.(\d+)\.norm2\.", r"block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"block.\1.layer.1.DenseReluDense.wo."),
)


def dit_name(name: str) -> str:
    """Of the transformer or its VACE branch, from diffusers' spelling or the official one."""
    return _apply(_DIT_FROM_DIFFUSERS, unwrapped(name))


def vae_name(name: str) -> str:
    """Of the VAE, from diffusers' spelling or the official one."""
    name = unwrapped(name)
    if not any(spelling in name for spelling in ("conv_", "_block", "norm_out", "quant_conv")):
        return name
    return _apply(_VAE_FROM_DIFFUSERS, _VAE_UP_BLOCK.sub(_flat_upsample, name))


def _flat_upsample(match: re.Match[str]) -> str:
    level, kind, index = int(match[1]), match[2], int(match[3])
    place = index if kind == "resnets" else _DECODER_LAYERS_PER_LEVEL - 1
    return f".upsamples.{level * _DECODER_LAYERS_PER_LEVEL + place}."


def tae_name(name: str) -> str:
    return unwrapped(name)


def text_name(name: str) -> str:
    """Of the text encoder: transformers' UMT5 stack, from its own spelling or Wan's."""
    name = unwrapped(name)
    if name in ("shared.weight", "encoder.embed_tokens.weight"):
        return "embed_tokens.weight"
    return _apply(_TEXT_FROM_OFFICIAL, name.removeprefix("encoder."))


def _apply(rules: Iterable[tuple[re.Pattern[str], str]], name: str) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


RENAME: dict[str, Callable[[str], str]] = {
    "dit": dit_name,
    "clean": dit_name,
    "vace": dit_name,
    "vae": vae_name,
    "tae": tae_name,
    "text": text_name,
}
"""By the role a file has in a model."""
