"""A loaded Wan 2.1 model, and how it runs a job: prompt, keyframes, then the rollout, whose blocks leave as frames."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial

import psutil
import torch
from attrs import evolve, frozen
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo
from torch import Tensor

from ..model.attention import choose_attention
from ..model.dit import Dit, How, Nag
from ..model.tae import Tae
from ..model.text import PromptTooLong
from ..model.vace import Vace
from ..model.vae import WanVae
from . import conditioning
from .approach import drafted
from .base import Chunk, Engine, Event, Frame, Job, Keyframe, Step
from .capacity import Need, largest_size
from .conditioning import ClipContext, GreyClip, Still, Strategy
from .geometry import Geometry, frames_of, latent_of
from .guide import Context, Focus, Guide, Pull
from .matte import matted, needs_motion, over_grey
from .noise import Schedule, even_schedule, make_schedule, seeded_noise, unipc_schedule
from .pipeline import Leaving, Pipeline, line_of, to_pictures
from .presets import TRAINED_LATENTS, Preset
from .rehearsal import Rehearsals, rehearsal
from .rollout import Made, Memory, Networks, Rollout, Sampling
from .script import Prompt, Script, Switch
from .seam import Seam

_SILENCE_S = {"cuda": 600.0}
"""A pass takes seconds; a first one that compiles the model takes minutes."""
_SLOW_SILENCE_S = 3600.0
"""On a CPU any pass takes minutes."""


@frozen(eq=False)
class Weights:
    """The networks of one model, on their device. `embed` maps a prompt to [1, T, text_dim], anywhere, or raises
    PromptTooLong."""

    dit: Dit
    vae: WanVae | Tae
    embed: Callable[[str], Tensor]
    vace: Vace | None = None
    tae: Tae | None = None
    clean: Dit | None = None
    """Makes the clean passes, where a model has another transformer for them."""
    draft: Callable[[], Engine] | None = None
    """The draft engine, loaded when it is first asked for."""
    eight_bit: bool = False
    """Whether the large matrices are in 8 bits."""


class WanEngine:
    """Implements `base.Engine`. Keeps what outlives a job: weights, compiled code, the grey clip that VACE needs."""

    def __init__(
        self,
        info: EngineInfo,
        preset: Preset,
        weights: Weights,
        device: torch.device,
        rehearsals: Rehearsals | None = None,
    ):
        """With `rehearsals`, clips that do not ask to be compiled are, once one of their kind was made."""
        self._rehearsals = rehearsals
        self._info = info
        self._preset = preset
        self._weights = weights
        self._device = device
        self._line = line_of(device)
        self._grey = GreyClip(weights.vae)
        self._attend = choose_attention("auto", device, weights.dit.compute_dtype)
        self._compiled: How | None = None

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def codec(self) -> WanVae | Tae:
        """The way from pixels to latents and back."""
        return self._weights.vae

    @torch.no_grad()
    def open(self, job: Job) -> Generator[Event, None, None]:
        """See `base.Engine.open`."""
        wanted, job = job, over_grey(job)
        strategy = Strategy.parse(str(job.params["strategy"]), self._weights.vace is not None)
        geometry = conditioning.plan_clip(job.width, job.height, job.num_frames, job.keyframes, self._preset, strategy)
        memory = self._memory(job, strategy, geometry)
        need = evolve(self._need(job, strategy, geometry, memory), matted=needs_motion(wanted))
        self._line.take_turns(need.beyond_weights(job.width, job.height, beside=True) > free_bytes(self._device))
        run = matted(self._run(job, strategy, geometry, memory), wanted, self._weights.draft)
        with closing(out_of_memory_explained(run, geometry, need, self._device)) as events:
            for event in events:
                yield evolve(event, silence_s=_SILENCE_S.get(self._device.type, _SLOW_SILENCE_S))

    def _run(
        self, job: Job, strategy: Strategy, geometry: Geometry, memory: Memory | None
    ) -> Generator[Event, None, None]:
        """One job from its prompt to its last frame. Everything that belongs to it is a local of this generator."""
        weights, params = self._weights, job.params
        yield Step("text", 0, 1)
        script = self._script(job, geometry)
        yield Step("text", 1, 1)
        around = yield from self._around_keyframes(job, strategy)
        stills = yield from conditioning.encode_stills(weights.vae, job.keyframes, self._device, around)
        context = self._context(job, geometry, strategy)
        decoder = weights.tae if weights.tae and params.get("decoder") == "tae" else weights.vae
        given = {position for block in geometry.blocks if block.given for position in block.latents}
        seam = Seam()
        for still in stills:
            if params["seam"] and still.at not in given:  # the rollout itself decodes what is given
                self._line.beside(partial(_learn, seam, still, decoder))  # and beside the first block's passes
        decode = partial(decoder.decode, state=decoder.new_decoder_state())
        guide = conditioning.guide(strategy, geometry, stills, context, self._dials(job))
        networks = Networks(weights.dit, weights.vace, self._how(job), weights.clean)
        if self._rehearsals and not job.params["compile"]:
            networks = self._rehearsed(networks, strategy, geometry, self._sampling(job), script.opening, guide, memory)
        rollout = Rollout(
            networks,
            geometry,
            self._sampling(job),
            script.opening,
            seeded_noise(job.seed, geometry, self._device),
            guide,
            memory,
            lambda latents: self._line.beside(lambda: decode(latents)),
            self._device,
            weights.dit.compute_dtype,
            switches=script.switches,
        )
        try:
            yield from self._deliver(job, rollout, seam, {still.at: still for still in stills})
        finally:
            self._line.join()

    def _around_keyframes(self, job: Job, strategy: Strategy) -> Generator[Step, None, Mapping[int, Keyframe]]:
        """Frames that are not given but shown to the model all the same, beside keyframes that are anchored."""
        if not _is_drafted(job, strategy):
            return conditioning.NOTHING
        assert self._weights.draft
        return (yield from drafted(self._weights.draft(), job.keyframes))

    def _deliver(
        self, job: Job, rollout: Rollout, seam: Seam, stills: Mapping[int, Still]
    ) -> Generator[Event, None, None]:
        """The rollout's steps as they are, its blocks as the frames that are wanted of them, one pass later or so."""
        pipeline = Pipeline(self._line)
        for event in rollout.run():
            if isinstance(event, Step):
                yield from self._chunks(job, pipeline.after_pass())
                yield event
            else:
                yield from self._chunks(
                    job, pipeline.rest()
                )  # long since there, unless decoding is all that takes time
                pictures = self._line.beside(partial(self._pictures, event, seam, stills if job.params["seam"] else {}))
                first = frames_of(event.block.start)[0]
                assert event.pixels is not None
                pipeline.add(event.block, first, event.latents, event.pixels, pictures)
                yield from self._chunks(job, pipeline.arrived())
        yield from self._chunks(job, pipeline.rest())

    def _pictures(self, made: Made, seam: Seam, stills: Mapping[int, Still]) -> Tensor:
        """A block's pictures [T, H, W, 3] uint8, corrected. The seam learns from what is given."""
        assert made.pixels is not None
        first = frames_of(made.block.start)[0]
        for position in made.block.latents if made.block.given and stills else ():
            until = frames_of(position).stop - first
            seam.learn(stills[position].errors(made.pixels[:, :until]))
        return to_pictures(seam.correct(first, made.pixels[0].float()))

    def _chunks(self, job: Job, arrived: Iterable[Leaving]) -> Generator[Chunk, None, None]:
        """Those of the pictures that are wanted."""
        for leaving in arrived:
            pictures = enumerate(leaving.pictures.numpy(), leaving.first)
            if frames := tuple(Frame(at, picture) for at, picture in pictures if job.wants(at)):
                yield Chunk(frames)

    def _script(self, job: Job, geometry: Geometry) -> Script:
        """The prompts of the job, each computed once. Raises RequestError where all of the clip is made at once."""
        texts = conditioning.prompts_by_latent(job.prompt, job.prompts)
        if len(texts) > 1 and len(geometry.made) == 1 < geometry.latents:
            message = (
                f"under strategy {job.params['strategy']} a clip of {job.num_frames} frames is made at once, so its "
                "prompt cannot change; choose a strategy without joint, or leave the later prompts out"
            )
            raise RequestError(ErrorCode.BAD_VALUE, message, "prompts")
        opening, *later = [(latent, self._prompts(job, text)) for latent, text in texts.items()]
        return Script(opening[1], [Switch(*one) for one in later])

    def _prompts(self, job: Job, text: str) -> list[Prompt]:
        """One prompt, with attention guidance if there is a negative one; two for a model that needs two passes."""
        prompt = self._embed(text, "prompt")
        if float(job.params.get("guidance", 1.0)) > 1:
            negative = job.negative_prompt or self._preset.negative_prompt
            return [self._prompt(prompt), self._prompt(self._embed(negative, "negative_prompt"))]
        if job.negative_prompt and "negative_strength" in job.params:
            nag = Nag(scale=float(job.params["negative_strength"]))
            return [self._prompt(prompt, self._embed(job.negative_prompt, "negative_prompt"), nag)]
        return [self._prompt(prompt)]

    def _prompt(self, prompt: Tensor, negative: Tensor | None = None, nag: Nag | None = None) -> Prompt:
        dit, vace = self._weights.dit, self._weights.vace
        vace_text = vace.embed_prompt(dit.embed_text(prompt)) if vace else []
        clean = self._weights.clean
        clean_text = clean.embed_prompt(prompt, negative, nag) if clean else []
        return Prompt(dit.embed_prompt(prompt, negative, nag), vace_text, clean_text)

    def _embed(self, text: str, field: str) -> Tensor:
        """[1, T, text_dim] on the device. Raises RequestError, which names `field` where the text is too long."""
        try:
            return self._weights.embed(text).to(self._device)
        except PromptTooLong as error:
            raise RequestError(ErrorCode.BAD_VALUE, str(error), field) from None

    def _dials(self, job: Job) -> conditioning.Dials:
        params, plain = job.params, conditioning.Dials()
        reach = int(params.get("anchor_reach", TRAINED_LATENTS))
        return conditioning.Dials(
            vace_strength=float(params.get("vace_strength", plain.vace_strength)),
            release=int(params.get("anchor_release", plain.release)),
            pull=Pull(
                strength=float(params.get("anchor_strength", plain.pull.strength)),
                fade=float(params.get("anchor_fade", plain.pull.fade)),
                reach=reach if reach < TRAINED_LATENTS else None,
            ),
            focus=Focus(
                strength=float(params.get("keyframe_focus", plain.focus.strength)),
                time_scale=float(params.get("keyframe_nearness", plain.focus.time_scale)),
            ),
        )

    def _context(self, job: Job, geometry: Geometry, strategy: Strategy) -> Context | None:
        if not strategy.vace:
            return None
        by_block = not strategy.whole and not strategy.lookahead
        vae = self._weights.vae
        return ClipContext(vae, self._grey, job.keyframes, geometry, by_block, self._device)

    def _sampling(self, job: Job) -> Sampling:
        preset = self._preset
        return Sampling(
            schedule=self._even_steps(job) if preset.even_steps else self._steps(preset.steps),
            first_schedule=self._steps(preset.first_steps) if preset.first_steps else None,
            context_t=preset.context_t,
            guidance=float(job.params.get("guidance", 1.0)),
        )

    def _even_steps(self, job: Job) -> Schedule:
        make = unipc_schedule if job.params.get("sampler") == "unipc" else even_schedule
        return make(self._preset.even_steps, self._preset.shift)

    def _steps(self, steps: Sequence[float]) -> Schedule:
        return make_schedule(steps, self._preset.shift, self._preset.warp)

    def _memory(self, job: Job, strategy: Strategy, geometry: Geometry) -> Memory | None:
        """The cache of a job; none where one block sees the whole clip and nothing is anchored."""
        if strategy.whole and not strategy.anchor:
            return None
        window = geometry.latents if strategy.whole else int(job.params["window"])
        preset = self._preset
        return Memory(window, preset.sink, preset.policy, preset.trained, preset.renews)

    def _need(self, job: Job, strategy: Strategy, geometry: Geometry, memory: Memory | None) -> Need:
        block = geometry.longest
        caches = 2 if float(job.params.get("guidance", 1.0)) > 1 else 1
        pinned = len({latent_of(k.at) for k in job.keyframes}) if strategy.anchor else 0
        seats = min(memory.window, geometry.latents) + pinned if memory else 0
        is_turned = self._dials(job).pull.reach is not None and self._preset.policy == "absolute"
        return Need(
            config=self._weights.dit.config,
            per_pass=block,
            seats=caches * seats,
            vace_span=min(geometry.latents, TRAINED_LATENTS if strategy.lookahead else block) if strategy.vace else 0,
            element_bytes=self._weights.dit.compute_dtype.itemsize,
            transformers=self._preset.transformers,
            eight_bit=self._weights.eight_bit,
            decoder="tae" if self._weights.tae and job.params.get("decoder") == "tae" else "wan",
            raw=caches * pinned if memory and is_turned else 0,
            drafted=_is_drafted(job, strategy),
            encoder_states=int(strategy.vace and conditioning.is_encoded_in_parts(strategy, geometry, job.keyframes)),
        )

    def _how(self, job: Job) -> How:
        if not job.params["compile"]:
            return How(self._attend)
        if self._compiled is None:
            self._compiled = How.compiled(self._attend)
        return self._compiled

    def _rehearsed(
        self,
        networks: Networks,
        strategy: Strategy,
        geometry: Geometry,
        sampling: Sampling,
        prompts: Sequence[Prompt],
        guide: Guide,
        memory: Memory | None,
    ) -> Networks:
        """With code that was compiled for such a clip; where there is none yet, that is begun beside this one."""
        assert self._rehearsals
        lengths = frozenset(block.count for block in geometry.blocks)
        is_guided = prompts[0].text[0].negative is not None
        policy = memory.policy if memory else None
        kind = (geometry.width, geometry.height, lengths, strategy, policy, bool(guide.known), is_guided)
        self._rehearsals.begin(kind, rehearsal(networks, geometry, sampling, prompts, guide, memory, self._device))
        return evolve(networks, how=self._rehearsals.how(kind))


def _is_drafted(job: Job, strategy: Strategy) -> bool:
    return strategy.anchor and job.params.get("anchor_shows") == "draft"


def _learn(seam: Seam, still: Still, decoder: WanVae | Tae) -> None:
    seam.learn(still.errors(decoder.decode(still.latents, decoder.new_decoder_state())))


def out_of_memory_explained(
    run: Generator[Event, None, None], geometry: Geometry, need: Need, device: torch.device
) -> Generator[Event, None, None]:
    """The events of `run`; running out of memory becomes a RequestError that names a size which fits.

    What is certain to be needed, the cache, is looked at beforehand: a CPU's memory does not run out with an error.
    """
    free = free_bytes(device)
    fits = need.cache_bytes(geometry.width, geometry.height) <= free
    if fits:
        try:
            yield from run
        except (torch.OutOfMemoryError, MemoryError):
            fits = False
        except RuntimeError as error:
            if not says_out_of_memory(error):
                raise
            fits = False
    if not fits:  # raised out here: what was caught above holds on to every tensor of the pass that failed
        raise _too_large(geometry, need, free)


def says_out_of_memory(error: RuntimeError) -> bool:
    """Not every allocator has a type of its own for it. An illegal memory access is something else."""
    return any(words in str(error).lower() for words in ("out of memory", "can't allocate memory", "not enough memory"))


def _too_large(geometry: Geometry, need: Need, free: int) -> RequestError:
    weights = need.weight_bytes
    wanted = need.at(geometry.width, geometry.height) - weights
    size = largest_size(need, geometry, free + weights)
    remedy = f"{size[0]}x{size[1]} should fit" if size else "not even a small size fits"
    return RequestError(
        ErrorCode.OUT_OF_MEMORY,
        f"{geometry.width}x{geometry.height} needs about {wanted / 1e9:.1f} GB besides the model, "
        f"{free / 1e9:.1f} GB are free; {remedy}, or a smaller window",
        "width",
    )


def free_bytes(device: torch.device) -> int:
    """Memory of the device that a job can still get."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
