"""Golden runs of the transformer, its VACE branch, its schedule and positions. All are driven by the sidecar alone.

The causal ones go through the real `Rollout`: the noise that the reference drew is injected, and a hook on the
transformer sees each pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import attrs
import torch
from golden_case import Case
from torch import Tensor, nn

from sfserver.engine.geometry import PIXELS_PER_LATENT, plan
from sfserver.engine.guide import Guide, encoded
from sfserver.engine.noise import Schedule, make_schedule, mix, training_sigmas
from sfserver.engine.rollout import Made, Memory, Networks, Prompt, Rollout, Sampling
from sfserver.model.config import from_official
from sfserver.model.dit import Dit, sinusoid
from sfserver.model.rope import RopeTable, axis_angles, pairs_per_axis, rotate
from sfserver.model.vace import Vace


def load_networks(case: Case) -> Networks:
    """The networks of a sidecar's `config` and `vace_layers`, with the weights that it names; every tensor must fit."""
    config = attrs.evolve(from_official(case.sidecar["config"]), vace_layers=tuple(case.sidecar.get("vace_layers", ())))
    weights = case.weights()
    branch = {key: value for key, value in weights.items() if key.startswith("vace_")}
    dit, vace = Dit(config), Vace(config) if config.vace_layers else None
    dit.load_state_dict({key: value for key, value in weights.items() if key not in branch})
    if vace is not None:
        vace.load_state_dict(branch)
    return Networks(dit, vace)


def embed_prompt(networks: Networks, embeds: Tensor) -> Prompt:
    vace_text = networks.vace.embed_prompt(networks.dit.embed_text(embeds)) if networks.vace else []
    return Prompt(networks.dit.embed_prompt(embeds), vace_text)


def whole_table(case: Case, x: Tensor) -> RopeTable:
    _, latents, _, height, width = x.shape
    return RopeTable(from_official(case.sidecar["config"]).head_dim, latents, height // 2, width // 2)


def run_bidirectional(case: Case) -> None:
    dit = load_networks(case).dit
    x, text = case.take("x").transpose(1, 2), dit.embed_prompt(case.take("context"))
    rotation = whole_table(case, x).at(0, x.shape[1])
    case.expect("inter/text_embedding", dit.embed_text(case.take("context")))
    seen: dict[str, Tensor] = {}
    modules = {"inter/patch_embedding": dit.patch_embedding, "inter/head": dit.head}
    for i, block in enumerate(dit.blocks):
        modules |= {
            f"inter/block{i}": block,
            f"inter/block{i}/cross_attn": block.cross_attn,
            f"inter/block{i}/ffn": block.ffn,
        }
        modules[f"inter/block{i}/self_attn"] = block.self_attn.o

    def note(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        seen.setdefault(name, output)  # the first timestep's

    for name, module in modules.items():
        module.register_forward_hook(partial(note, name))
    for i in range(sum(key.startswith("out") for key in case.tensors)):
        t = case.take(f"t{i}")[:, None]
        case.expect(f"out{i}", dit(x, t, text, rotation).transpose(1, 2))
    time = dit.embed_time(case.take("t0")[:, None])
    case.expect("inter/time_embedding", time.head[:, 0])
    case.expect("inter/time_projection", time.blocks[:, 0].flatten(1))
    grid = (x.shape[1], x.shape[3] // 2, x.shape[4] // 2)
    seen["inter/patch_embedding"] = seen["inter/patch_embedding"].unflatten(1, grid).movedim(-1, 1)
    for name, output in seen.items():
        case.expect(name, output)


def run_vace_bidirectional(case: Case) -> None:
    networks = load_networks(case)
    dit, vace = networks.dit, networks.vace
    assert vace is not None
    x, t, prompt = (
        case.take("x").transpose(1, 2),
        case.take("t")[:, None],
        embed_prompt(networks, case.take("prompt_embeds")),
    )
    rotation = whole_table(case, x).at(0, x.shape[1])
    context = case.take("vace_context").transpose(0, 1)[None]
    hints = vace(dit.embed_latents(x), dit.embed_time(t).blocks, context, prompt.vace_text, rotation)
    for i, hint in enumerate(hints):
        case.expect(f"hint{i}", hint)
    for key in [key for key in case.tensors if key.startswith("out_scale")]:
        scale = float(key.removeprefix("out_scale"))
        flow = dit(x, t, prompt.text, rotation, hints=[scale * hint for hint in hints])
        case.expect(key, flow[0].transpose(0, 1))


def run_causal(case: Case) -> None:
    """Any rollout of the reference: text to video, from given latents, windowed, with sinks, with VACE."""
    sidecar, networks = case.sidecar, load_networks(case)
    initial = case.take("initial_latent") if "initial_latent" in case else None
    known = {i: initial[:, i : i + 1] for i in range(initial.shape[1])} if initial is not None else {}
    per_block, lead = sidecar["num_frame_per_block"], int(sidecar.get("independent_first_frame", False))
    given = [1] * lead + [per_block] * ((len(known) - lead) // per_block) if known else []
    latents = case.tensors["latents"].shape[1]
    height, width = (PIXELS_PER_LATENT * side for side in sidecar["latent_hw"])
    geometry = plan(width, height, 4 * latents - 3, per_block, given, first=0 if known else lead)
    assert (geometry.latents, sum(given)) == (latents, len(known))

    all_noise, first = case.take("noise"), geometry.made[0].start

    def noise(block: int, step: int) -> Tensor:
        if step == 0:
            start = geometry.made[block].start - first
            return all_noise[:, start : start + geometry.made[block].count]
        return case.take(f"renoise/block{block}/step{step - 1}")[None]

    schedule = make_schedule(sidecar["steps"], sidecar["timestep_shift"])
    case.expect("denoising_timesteps", torch.tensor(schedule.timesteps))
    prompt = embed_prompt(networks, case.take("prompt_embeds"))
    context = encoded(case.take("vace_context").transpose(0, 1)[None]) if networks.vace else None
    window = sidecar.get("local_attn_size", -1)
    rollout = Rollout(
        networks,
        geometry,
        Sampling(schedule, context_t=float(sidecar.get("context_noise", 0))),
        [prompt],
        noise,
        Guide(known, context),
        Memory(window if window > 0 else latents, sidecar.get("sink_size", 0)),
    )
    labels = _labels(len(given), len(geometry.made), len(schedule))
    trace = iter(sidecar["trace"])
    networks.dit.register_forward_hook(partial(_compare_pass, case, labels, trace, schedule))
    made = [event for event in rollout.run() if isinstance(event, Made)]
    assert not list(rollout.run()), "a rollout that has ended makes nothing more"
    list(rollout.remember())
    assert next(trace, None) is None, "the reference ran more passes"

    case.expect("latents", torch.cat([event.latents for event in made], dim=1))
    for i, layer in enumerate(prompt.text):
        case.expect(f"crossattn/layer{i}/k", layer.k)
        case.expect(f"crossattn/layer{i}/v", layer.v)


def _labels(given: int, blocks: int, steps: int) -> Iterator[tuple[str, list[str]]]:
    """How the files name each pass, in order, and what they call the cache after it."""
    for block in range(given):
        yield f"prefill{block}", []
    for block in range(blocks):
        for step in range(steps):
            yield f"block{block}/step{step}", [f"kv_after_block{block}_step{step}"]
        yield f"block{block}/context", [f"kv_after_block{block}", *(["kv_final"] if block == blocks - 1 else [])]


def _compare_pass(
    case: Case,
    labels: Iterator[tuple[str, list[str]]],
    trace: Iterator[dict[str, Any]],
    schedule: Schedule,
    dit: Dit,
    inputs: tuple[Any, ...],
    flow: Tensor,
) -> None:
    x, t, _, _, cache, hints, _ = inputs
    label, cache_labels = next(labels)
    expected = next(trace)
    tokens = case.sidecar["tokens_per_frame"]
    assert (x.shape[1], len(cache.positions) * tokens) == (expected["frames"], expected["local_end"]), label
    assert (cache.positions[-1] + 1) * tokens == expected["global_end"], label
    assert abs(float(t[0, 0]) - expected["t"]) < 1e-4, label
    for what, value in (("x", x), ("flow", flow)):
        case.expect(f"{label}/{what}", value)
    case.expect(f"{label}/t", t.expand_as(case.tensors.get(f"{label}/t", t)))
    if "/step" in label:
        case.expect(f"{label}/x0", schedule.clean(int(label[-1]), x, flow))
    for i, hint in enumerate(hints):
        case.expect(f"{label}/hint{i}", hint)
    for name in cache_labels:
        for layer in range(dit.config.layers):
            if f"{name}/layer{layer}/k" in case:
                k, v = cache.read(layer)
                case.expect(f"{name}/layer{layer}/k", k)
                case.expect(f"{name}/layer{layer}/v", v)


def run_scheduler(case: Case) -> None:
    for shift in sorted({key.split("/")[0] for key in case.tensors if key.startswith("shift")}):
        sigmas = training_sigmas(float(shift.removeprefix("shift")))
        case.expect(f"{shift}/sigmas", sigmas)
        case.expect(f"{shift}/timesteps", 1000 * sigmas)
        for key in [key for key in case.tensors if key.startswith(f"{shift}/warped_")]:
            steps = [int(step) for step in key.split("_")[1:]]
            schedule = make_schedule(steps, float(shift.removeprefix("shift")))
            case.expect(key, torch.tensor(schedule.timesteps))
    told = case.take("lookup/t").tolist()
    looked_up = make_schedule(told, shift=5.0, warp=False)
    case.expect("lookup/sigma", torch.tensor(looked_up.sigmas))
    clean, noise, flow = (case.take(f"conv/{key}") for key in ("x0", "noise", "flow"))
    schedule = make_schedule(case.take("conv/t").tolist(), shift=5.0, warp=False)
    noisy = torch.stack([mix(clean[i], noise[i], schedule.sigmas[i]) for i in range(len(schedule))])
    case.expect("conv/xt", noisy)
    case.expect("conv/x0_from_flow", torch.stack([schedule.clean(i, noisy[i], flow[i]) for i in range(len(schedule))]))
    sigmas = torch.tensor(schedule.sigmas).view(-1, 1, 1, 1)
    case.expect("conv/flow_from_x0", (noisy - clean) / sigmas)


def run_rope_time(case: Case) -> None:
    latents, rows, columns = 2, 3, 4  # of x, as the sidecar's note says
    for head in sorted({key.split("/")[0] for key in case.tensors if key.startswith("hd")}):
        width = int(head.removeprefix("hd"))
        angles = torch.cat([axis_angles(case.take(f"{head}/positions"), pairs) for pairs in pairs_per_axis(width)], -1)
        case.expect(f"{head}/cos", angles.cos())
        case.expect(f"{head}/sin", angles.sin())
        table = RopeTable(width, latents=16, rows=rows, columns=columns)
        for key in [key for key in case.tensors if key.startswith(f"{head}/start")]:
            start = int(key.split("/start")[1])
            case.expect(key, rotate(case.take(f"{head}/x"), table.at(start, latents)))
    for name in sorted({key.split("/")[0] for key in case.tensors if key.startswith("sinusoid")}):
        case.expect(f"{name}/emb", sinusoid(case.take(f"{name}/t"), int(name.removeprefix("sinusoid"))))


RUNNERS = {
    "bidirectional": run_bidirectional,
    "vace_bidirectional": run_vace_bidirectional,
    "causal": run_causal,
    "scheduler": run_scheduler,
    "rope_time": run_rope_time,
}
