"""Golden runs of what stands around the transformer: VAE, TAEHV, text encoder and VACE's context.

Each is driven by its sidecar alone.
"""

from __future__ import annotations

import json

import torch
from einops import rearrange, repeat
from golden_case import Case
from torch import Tensor

from sfserver.model.tae import Tae, TaeConfig
from sfserver.model.text import TextConfig, embed_tokens, umt5_stack
from sfserver.model.vace import fold_mask, vace_context
from sfserver.model.vae import StreamState, VaeConfig, WanVae
from sfserver.weights.dialects import text_name


def vae_of(sidecar: dict, weights: dict[str, Tensor]) -> WanVae:
    """The VAE of a sidecar; `weights` may hold one half of it, and then that half must be complete."""
    config = sidecar["config"]
    vae = WanVae(
        VaeConfig(
            dim=config["dim"],
            z_channels=config["z_dim"],
            dim_mult=tuple(config["dim_mult"]),
            num_res_blocks=config["num_res_blocks"],
            temporal_downsample=tuple(config["temperal_downsample"]),
            latent_mean=tuple(sidecar["mean"]),
            latent_std=tuple(sidecar["std"]),
        )
    ).requires_grad_(False)
    halves = [("encoder.", "conv1."), ("decoder.", "conv2.")]
    expected = {
        k for half in halves if any(w.startswith(half) for w in weights) for k in vae.state_dict() if k.startswith(half)
    }
    assert set(weights) == expected
    vae.load_state_dict(weights, strict=False)
    return vae


def time_first(x: Tensor) -> Tensor:
    return rearrange(x, "b c t h w -> b t c h w")


def time_third(x: Tensor) -> Tensor:
    return rearrange(x, "b t c h w -> b c t h w")


def run_vae(case: Case) -> None:
    vae = vae_of(case.sidecar, case.weights())
    pixels = time_first(case.take("pixels"))
    case.expect("latents", time_third(vae.encode(pixels)))
    case.expect("latents_first_frame_only", time_third(vae.encode(pixels[:, :1])))

    latents = time_first(case.take("dec/latents"))
    case.expect("dec/pixels_one_latent", time_third(vae.decode_unclamped(latents[:, :1], StreamState())))
    state = StreamState()
    first_two = vae.decode_unclamped(latents[:, :2], state)
    check_history(case, state)
    streamed = torch.cat([first_two, vae.decode_unclamped(latents[:, 2:], state)], dim=1)
    case.expect("dec/pixels", time_third(streamed))
    torch.testing.assert_close(vae.decode(latents, StreamState()), streamed.clamp(-1, 1))

    # A published demo begins with histories of zeros instead, and so gets 4 frames of the first latent: other pictures.
    zeros = StreamState()
    zeros.past = {layer: torch.zeros_like(past) for layer, past in state.past.items()}
    case.expect("dec/pixels_zero_cache_variant", time_third(vae.decode_unclamped(latents, zeros)))


def check_history(case: Case, state: StreamState) -> None:
    """What the stream remembers after two latents, layer by layer in order of execution."""
    histories = list(state.past.values())
    shapes = [shape for shape in case.sidecar["feat_cache_shapes_after_2_latents"] if shape != "None"]
    assert [list(past.shape) for past in histories] == shapes
    for i, past in enumerate(histories):
        case.expect(f"cache_after_2/{i}", past)


def run_taehv(case: Case) -> None:
    tae = Tae(TaeConfig(decoder_widths=tuple(case.sidecar["n_f"]), encoder_width=case.sidecar["enc_width"]))
    tae.requires_grad_(False)
    tae.load_state_dict({key[2:]: case.take(key) for key in case.tensors if key.startswith("w.")})

    latents = case.take("latents")
    case.expect("raw_decode", tae.decode_unclamped(latents, StreamState()))
    case.expect("pixels", (tae.decode(latents, StreamState()) + 1) / 2)
    case.expect("enc/latents", tae.encode(case.take("enc/pixels") * 2 - 1))


def run_t5(case: Case) -> None:
    config = case.sidecar["config"]
    stack = umt5_stack(
        TextConfig(
            vocab_size=config["vocab"],
            dim=config["dim"],
            ffn_dim=config["dim_ffn"],
            heads=config["num_heads"],
            head_dim=config["dim_attn"] // config["num_heads"],
            layers=config["num_layers"],
            position_buckets=config["num_buckets"],
        )
    )
    stack.load_state_dict({text_name(key[2:]): case.take(key) for key in case.tensors if key.startswith("w.")})

    ids, mask = case.take("ids"), case.take("mask")
    raw, prompt_embeds = case.take("raw"), torch.zeros_like(case.take("raw"))
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        prompt_embeds[row, :length] = embed_tokens(stack, ids[row : row + 1, :length])
        valid = slice(None, length)
        torch.testing.assert_close(
            prompt_embeds[row, valid], raw[row, valid], atol=case.sidecar["tolerance"]["atol"], rtol=0
        )
    case.expect("prompt_embeds", prompt_embeds)


def run_vace_context(case: Case) -> None:
    weights = case.weights("vae")
    vae = vae_of(json.loads((case.folder / f"{case.sidecar['vae']}.json").read_text("utf-8")), weights)
    frames, latents = case.sidecar["n_pixel_frames"], case.take("latents_inactive_reactive").shape[1]
    first, last = (repeat(case.take(key), "c h w -> c (h 8) (w 8)") for key in ("first_image", "last_image"))

    pixels = torch.zeros(1, frames, *first.shape)
    pixels[0, 0], pixels[0, -1] = first, last
    mask = torch.ones(1, frames, *first.shape[1:])
    mask[:, [0, -1]] = 0
    inactive, reactive = vae.encode(pixels * (1 - mask[:, :, None])), vae.encode(pixels * mask[:, :, None])
    case.expect("latents_inactive_reactive", time_third(torch.cat([inactive, reactive], dim=2))[0])
    folded = fold_mask(mask, latents)
    case.expect("mask64", time_third(folded)[0])
    case.expect("vace_context", time_third(vace_context(inactive, reactive, folded))[0])
    case.expect("random_mask64", time_third(fold_mask(case.take("random_mask"), latents))[0])


RUNNERS = {"vae": run_vae, "taehv": run_taehv, "t5": run_t5, "vace_context": run_vace_context}
