"""Each model that can be run, as data: how it was trained to be sampled, where its weights are, who may use them.

Files and settings are as the models' own pages give them. Every default says below itself why it is this one; what
nobody has seen with weights yet says that. Nothing here imports torch or looks at a disk.
"""

from __future__ import annotations

from typing import Literal

from attrs import evolve, frozen

from ..model.config import WAN_1_3B, WAN_1_3B_VACE, DitConfig
from ..model.positions import Policy

Role = Literal["dit", "clean", "lora", "vace", "vae", "tae", "text", "tokenizer"]

TRAINED_LATENTS = 21
"""81 frames: what every Wan 2.1 model was trained on, hence the widest window and look-ahead that make sense."""


@frozen
class Source:
    """A file on the Hugging Face hub, or with a trailing slash all files of a folder."""

    repository: str
    file: str
    licence: str
    confirm: bool = False
    """The licence forbids commercial use, or is disputed: whoever downloads must say that they accept it."""
    prefer: tuple[str, ...] = ("generator_ema", "generator", "model", "state_dict")
    """Which dictionary to take from a training checkpoint, the first that is there."""


@frozen
class Part:
    """One piece of a model: its role, where it is kept below the models folder, and where it comes from.

    The path of a `lora` is the file that it is merged into when that is converted.
    """

    role: Role
    path: str
    source: Source
    optional: bool = False
    """The model runs without it."""


@frozen
class Preset:
    """One model under one id. Lengths are in latents."""

    id: str
    title: str
    summary: str
    parts: tuple[Part, ...]
    dit: DitConfig = WAN_1_3B
    """Sizes. Causal models of this architecture are published at 1.3B."""
    strategies: tuple[str, ...] = ("anchor", "joint+anchor")
    """Keyframe strategies it can follow, the default first; see `conditioning.Strategy`. `anchor` streams and is how
    these models are run; `joint+anchor` has to be asked for, as its first frame comes with its last."""
    per_block: int = 3
    """As Self Forcing was trained, and most that came after it."""
    window: int = TRAINED_LATENTS
    """The widest that is of use: all of a clip of the trained length."""
    sink: int = 1
    """Oldest latents that stay when the window moves on. Most models are published with none, for clips that fit the
    window; a longer clip from a given first frame would forget what it began as, so here that frame always stays."""
    policy: Policy = "absolute"
    """Where in time what is looked back at seems to lie; see `model.positions`. Self Forcing caches rotated keys."""
    trained: int | None = None
    """Positions that the model was trained at, where its policy must keep within them. `absolute` cannot: `frames`
    keeps such a model within them."""
    renews: bool = False
    """Under another prompt in mid-clip, the window is computed anew. Only where a model was trained so: it costs a pass
    for each block of the window."""
    steps: tuple[float, ...] = (1000, 750, 500, 250)
    """Self Forcing's `denoising_step_list`."""
    warp: bool = True
    """The steps are places in the shifted schedule and not the timesteps themselves (`warp_denoising_step`)."""
    shift: float = 5.0
    """Self Forcing's `timestep_shift`, by its inference.py; its demo runs 8 for want of being told."""
    first_steps: tuple[float, ...] = ()
    """Steps of the first block, where they are others: it has the least to go by."""
    even_steps: int = 0
    """For models that were not distilled: as many steps along the flow instead of `steps`."""
    samplers: tuple[str, ...] = ()
    """How those steps are taken, the default first; see `noise.Sampler`. Empty for distilled models."""
    context_t: float = 0.0
    """The timestep that the clean pass is told. All that is published has 0 (`context_noise`)."""
    guidance: float = 1.0
    """Above 1: two passes. At 1, a negative prompt works by attention guidance. Distillation put the guidance into the
    weights; more of it would burn."""
    negative_prompt: str = ""
    """Taken where the user gives none. At a guidance of 1 none means that nothing is spent on one."""
    frames: tuple[int, int] = (3, 81)
    """Shortest and longest clip. 81 frames are what most models were trained on: beyond, they meet positions that they
    have never seen."""

    @property
    def release(self) -> int:
        """Passes in which a still at a keyframe is let go, so that it moves like what is around it: the last one, where
        another pass has seen the picture before. The first begins with nothing but noise and cannot."""
        return 1 if max(len(self.steps), self.even_steps) > 2 else 0

    @property
    def licence(self) -> str:
        """Of all weights together, each named once."""
        return "; ".join(dict.fromkeys(part.source.licence for part in self.parts))

    @property
    def confirm(self) -> bool:
        """Somebody must accept a licence before these weights are downloaded."""
        return any(part.source.confirm for part in self.parts)

    @property
    def transformers(self) -> int:
        return 2 if self.part("clean") else 1

    def part(self, role: Role) -> Part | None:
        return next((part for part in self.parts if part.role == role), None)


_APACHE = "Apache-2.0"
_NON_COMMERCIAL = "CC-BY-NC-SA-4.0, non-commercial"
_DISPUTED = "Apache-2.0 since 2025-09-11, CC-BY-NC-SA-4.0 before: check the model card"

_BASE_REPOSITORY = "Wan-AI/Wan2.1-T2V-1.3B"
_VACE_SOURCE = Source("Wan-AI/Wan2.1-VACE-1.3B", "diffusion_pytorch_model.safetensors", _APACHE)

_SHARED = (
    Part("vae", "wan2.1/vae.safetensors", Source(_BASE_REPOSITORY, "Wan2.1_VAE.pth", _APACHE)),
    Part("tae", "taew2_1/tae.safetensors", Source("Kijai/WanVideo_comfy", "taew2_1.safetensors", "MIT"), optional=True),
    Part("text", "wan2.1/text.safetensors", Source(_BASE_REPOSITORY, "models_t5_umt5-xxl-enc-bf16.pth", _APACHE)),
    Part("tokenizer", "wan2.1/tokenizer/", Source(_BASE_REPOSITORY, "google/umt5-xxl/", _APACHE)),
)
"""The same for all: pictures to latents and back, and prompts."""
_VACE = Part("vace", "wan-vace/vace.safetensors", _VACE_SOURCE)

_LONG = (3, 481)
"""Of models that were trained to roll on behind a window: twenty seconds at 24 frames a second, a shot's length."""
_WITH_VACE = ("chunk+anchor", "anchor", "chunk", "lookahead+anchor", "lookahead", "joint", "joint+anchor")
"""Those that stream come first: look-ahead runs the branch over the rest of the clip in every pass. `chunk+anchor`
leads: the anchor steers early, the branch knows the end picture, and only blocks with a keyframe pay for it. Which of
them looks best has not been seen."""


def _dit(folder: str, source: Source) -> Part:
    return Part("dit", f"{folder}/dit.safetensors", source)


SELF_FORCING = Preset(
    id="self-forcing",
    title="Self Forcing 1.3B",
    summary="Wan 2.1 distilled to four steps a block; keyframes steer through the cache",
    parts=(
        _dit(
            "self-forcing",
            Source("gdhe17/Self-Forcing", "checkpoints/self_forcing_dmd.pt", _DISPUTED, confirm=True),
        ),
        *_SHARED,
    ),
)
"""All defaults of `Preset` are its own. The DMD weights, as its README runs them; SiD's lie beside them."""
SELF_FORCING_VACE = evolve(
    SELF_FORCING,
    id="self-forcing-vace",
    title="Self Forcing 1.3B with VACE",
    summary="Self Forcing, its keyframes shown to it by the VACE branch as well",
    dit=WAN_1_3B_VACE,
    parts=(*SELF_FORCING.parts, _VACE),
    strategies=_WITH_VACE,
)
"""The branch was trained for the model that Self Forcing was distilled from, and works on it as it is."""
CAUSAL_FORCING = Preset(
    id="causal-forcing",
    title="Causal Forcing 1.3B",
    summary="Causal Forcing, three latents a block, four steps",
    parts=(
        _dit(
            "causal-forcing",
            Source("zhuhz22/Causal-Forcing", "chunkwise/causal_forcing.pt", _APACHE, prefer=("generator", "model")),
        ),
        *_SHARED,
    ),
)
"""A drop-in for Self Forcing. Chunk-wise its README runs the plain weights, not their average."""
CAUSAL_FORCING_FRAME = evolve(
    CAUSAL_FORCING,
    id="causal-forcing-frame",
    title="Causal Forcing 1.3B, frame-wise",
    summary="Causal Forcing, one latent a block: the earliest first frame",
    parts=(
        _dit("causal-forcing-frame", Source("zhuhz22/Causal-Forcing", "framewise/causal_forcing.pt", _APACHE)),
        *_SHARED,
    ),
    per_block=1,
)
"""Trained with blocks of one latent, hence with a first frame that is given."""
CAUSAL_FORCING_2STEP = evolve(
    CAUSAL_FORCING_FRAME,
    id="causal-forcing-2step",
    title="Causal Forcing++ 1.3B, two steps",
    summary="Causal Forcing++, one latent a block, two steps after a first block of four",
    parts=(
        _dit(
            "causal-forcing-2step",
            Source("zhuhz22/Causal-Forcing", "causal-forcing++/framewise-2step.pt", _APACHE),
        ),
        *_SHARED,
    ),
    steps=(1000, 500),
    first_steps=(1000, 750, 500, 250),
)
"""As it was distilled: two steps, and four where nothing has been made yet."""
CAUSAL_FORCING_1STEP = evolve(
    CAUSAL_FORCING_2STEP,
    id="causal-forcing-1step",
    title="Causal Forcing++ 1.3B, one step",
    summary="Causal Forcing++, one latent a block, one step after a first block of four: the fastest",
    parts=(
        _dit(
            "causal-forcing-1step",
            Source("zhuhz22/Causal-Forcing", "causal-forcing++/framewise-1step.pt", _APACHE),
        ),
        *_SHARED,
    ),
    steps=(1000,),
)
"""As it was distilled: one step, and four where nothing has been made yet."""
CAUSAL_FORCING_LONG = evolve(
    CAUSAL_FORCING,
    id="causal-forcing-long",
    title="Causal Forcing 1.3B, long video",
    summary="Causal Forcing trained on for minutes. Its authors denoise several blocks at a time, each less noisy "
    "than the next; here it is one after the other",
    parts=(
        _dit("causal-forcing-long", Source("zhuhz22/Causal-Forcing", "chunkwise/longvideo.pt", _APACHE)),
        *_SHARED,
    ),
    sink=3,
    policy="relative",
    trained=TRAINED_LATENTS,
    frames=_LONG,
)
"""By Rolling Forcing's rules (`rolling_forcing_dmd.yaml`): the first block stays and seems to lie right before the rest
of a window of 21 latents, which `relative` says as well. Its rollout of several blocks at once is not built, so `auto`
takes models first that were trained for this one."""
LONGLIVE = Preset(
    id="longlive",
    title="LongLive 1.3B",
    summary="Trained for long clips with a short window and a sink: constant speed and memory",
    parts=(
        _dit(
            "longlive",
            Source(
                "Efficient-Large-Model/LongLive-1.3B",
                "models/longlive_base.pt",
                _APACHE,
                prefer=("generator", "generator_ema", "model"),
            ),
        ),
        Part(
            "lora", "longlive/dit.safetensors", Source("Efficient-Large-Model/LongLive-1.3B", "models/lora.pt", _APACHE)
        ),
        *_SHARED,
    ),
    window=12,
    sink=3,
    renews=True,
    frames=_LONG,
)
"""Window and sink of its configuration; the prompt's switch with a window made anew is what it was trained for."""
SGF = Preset(
    id="sgf",
    title="Self Gradient Forcing 1.3B",
    summary="Trained through what it looks back at; a window of twelve latents behind three that stay, any length",
    parts=(_dit("sgf", Source("JunhaoZhuang/Self_Gradient_Forcing", "chunkwise/ar/model.pt", _APACHE)), *_SHARED),
    window=12,
    sink=3,
    policy="top",
    trained=12,
    frames=_LONG,
)
"""Its configuration: positions are top-aligned in a trained range that is as long as the window."""
SGF_FRAME = evolve(
    SGF,
    id="sgf-frame",
    title="Self Gradient Forcing 1.3B, frame-wise",
    summary="Self Gradient Forcing, one latent a block: the earliest first frame, clips of any length",
    parts=(_dit("sgf-frame", Source("JunhaoZhuang/Self_Gradient_Forcing", "framewise/ar/model.pt", _APACHE)), *_SHARED),
    per_block=1,
    window=21,
    sink=4,
    trained=21,
)
"""Its configuration: one latent a block, a sink of four, and a trained range of 21."""


def _sgf_plus(preset: Preset, folder: str, title: str, file: str) -> Preset:
    source = Source("ZihanSu/Self_Gradient_Forcing_Plus", file, _APACHE)
    parts = (_dit(folder, source), Part("clean", f"{folder}/clean.safetensors", source), *_SHARED)
    summary = f"{preset.summary}; what is looked back at is seen by a second transformer"
    return evolve(preset, id=folder, title=title, summary=summary, parts=parts)


SGF_PLUS = _sgf_plus(SGF, "sgf-plus", "Self Gradient Forcing+ 1.3B", "chunkwise/model.pt")
"""As `SGF`; the second transformer lies in the same file."""
SGF_PLUS_FRAME = _sgf_plus(SGF_FRAME, "sgf-plus-frame", "Self Gradient Forcing+ 1.3B, frame-wise", "framewise/model.pt")
"""As `SGF_FRAME`; the second transformer lies in the same file."""
CAUSVID = Preset(
    id="causvid",
    title="CausVid 1.3B",
    summary="The predecessor of Self Forcing, three steps a block",
    parts=(
        _dit(
            "causvid",
            Source(
                "tianweiy/CausVid",
                "autoregressive_checkpoint/model.pt",
                _NON_COMMERCIAL,
                confirm=True,
                prefer=("generator",),
            ),
        ),
        *_SHARED,
    ),
    steps=(1000, 757, 522),
    warp=False,
    shift=8.0,
)
"""Its configuration: three steps that are timesteps themselves; the 0 at the end of its list is not one."""
WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)
"""Wan 2.1's `sample_neg_prompt`: what its models were told to keep from wherever they were shown."""
WAN_VACE = Preset(
    id="wan-vace",
    title="Wan 2.1 VACE 1.3B",
    summary="Not distilled: the whole clip at once in fifty steps of two passes, the yardstick for quality",
    parts=(_dit("wan-vace", _VACE_SOURCE), _VACE, *_SHARED),
    dit=WAN_1_3B_VACE,
    strategies=("joint",),
    even_steps=50,
    samplers=("unipc", "euler"),
    shift=16.0,
    guidance=5.0,
    negative_prompt=WAN_NEGATIVE,
    frames=(3, 81),
)
"""Shift, guidance, steps and sampler are the defaults of Wan 2.1's own `generate.py` for the task vace: sample_shift
16, sample_guide_scale 5.0, sample_steps 50, sample_solver unipc, and its negative prompt where none is given."""

_BUILT_IN = Source(repository="", file="", licence=_APACHE)

SMALL_WORLD = Preset(
    id="small-world",
    title="Small World (the mechanism at toy size)",
    summary="Moves one flat shape on a plain ground as the prompt says, at 64x64: the rollout, cache and keyframes of "
    "the large models, watchable on any computer. It knows its own small world and nothing else",
    parts=(
        Part("dit", "dit.safetensors", _BUILT_IN),
        Part("tae", "tae.safetensors", _BUILT_IN),
        Part("text", "text.safetensors", _BUILT_IN),
        Part("tokenizer", "tokenizer/", _BUILT_IN),
    ),
    dit=DitConfig(dim=96, ffn_dim=384, layers=4, heads=3, text_dim=64, text_len=32, freq_dim=128),
    strategies=("anchor",),
    per_block=1,
    window=10,
    frames=(6, 34),
)
"""Comes with the package and is trained by it, see `train`. Its only codec is a TAEHV. Frame-wise, as the motion of a
whole clip is a handful of latents. A window of 10 latents is its longest clip, the longest that it was trained on."""

PRESETS: tuple[Preset, ...] = (
    SELF_FORCING_VACE,
    SELF_FORCING,
    CAUSAL_FORCING,
    CAUSAL_FORCING_FRAME,
    LONGLIVE,
    SGF,
    SGF_PLUS,
    SGF_FRAME,
    SGF_PLUS_FRAME,
    CAUSAL_FORCING_2STEP,
    CAUSAL_FORCING_1STEP,
    CAUSAL_FORCING_LONG,
    CAUSVID,
    WAN_VACE,
)
"""In the order in which `auto` prefers them: what knows the end picture first, then what is published as the better of
two, those that roll on behind those that do not, more steps before fewer, what is not run as it was trained, the
oldest, and last what does not stream."""


def find(preset_id: str) -> Preset | None:
    return next((preset for preset in PRESETS if preset.id == preset_id), None)
