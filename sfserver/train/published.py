"""Models that others have published: what training begins with, what it is told of them, and what it leaves.

What comes out is a folder like every other model's: the transformer is written by `weights.convert`, additions merged
into it; codec, text encoder and tokenizer, which nothing has changed, are links to where they are.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from attrs import frozen
from safetensors.torch import save_file

from ..engine.noise import make_schedule
from ..engine.presets import WAN_NEGATIVE, Preset, Role, find
from ..errors import UserError
from ..model.dit import Dit
from ..model.tae import Tae
from ..model.text import TextEncoder, clean_prompt
from ..model.vae import WanVae
from ..weights import loading
from ..weights.convert import Wish, convert
from ..weights.manifest import FILE_OF_ROLE, Manifest, merged, problem, write_manifest
from .latents import Latents
from .loop import averages_of, step_random
from .lora import Lora, write_lora
from .memory import Load, needed
from .place import Place
from .prepare import read_shelf
from .recipe import Recipe, StageRecipe
from .run import MODEL_FOLDER
from .showing import Showing, held_out
from .stages import Material

NEGATIVE = clean_prompt(WAN_NEGATIVE)
"""What guidance steps away from: what Wan 2.1 was told to keep from wherever it was shown."""


@frozen
class Published:
    """A model of the models folder."""

    preset: Preset
    models_dir: Path

    def home(self, role: Role) -> Path:
        """The folder that holds a part. Raises UserError where it is not there or not whole."""
        part = self.preset.part(role)
        assert part, f"{self.preset.id} has no {role}"
        path = self.models_dir / part.path
        why = problem(path, role)
        if why:
            raise UserError(f"{why}; run: sfserver fetch {self.preset.id}")
        return path.parent

    def load_dit(self, device: torch.device, dtype: torch.dtype) -> Dit:
        """Large matrices in `dtype`, nothing of it learning. Raises UserError."""
        return loading.load_transformer(self.home("dit"), None, device, dtype, expect=self.preset.dit)[0]

    def load_vae(self, device: torch.device) -> WanVae | Tae:
        """In float32: what is made with it is kept."""
        return loading.load_vae(self.home("vae"), device, torch.float32)

    def load_text(self) -> TextEncoder:
        """On the CPU, as `wan_load` has it."""
        most = self.preset.dit.text_len
        cpu = torch.device("cpu")
        return loading.load_text_encoder(self.home("text"), self.home("tokenizer"), cpu, torch.bfloat16, most)

    def encoders(self) -> str:
        """Names the weights of both encoders."""
        vae = loading.component_of(self.home("vae"), "vae").sha256
        return vae + loading.text_identity(self.home("text"), self.home("tokenizer"))


def published(model: str, models_dir: Path) -> Published:
    """Raises UserError where there is no such model."""
    preset = find(model)
    if preset is None:
        raise UserError(f"there is no model {model!r} that was published; see: sfserver models")
    return Published(preset, models_dir)


Models = Callable[[str], Published]
"""By their ids; the empty one is the recipe's own."""


def check_licences(recipe: Recipe, models: Models, accepted: bool) -> None:
    """Raises UserError where weights that training begins with have a licence that somebody must say yes to."""
    for name in _used(recipe):
        part = models(name).preset.part("dit")
        assert part
        if part.source.confirm and not accepted:
            raise UserError(
                f"{part.source.repository}: {part.source.licence}; what is trained from it is under it too: if that "
                "suits your use, add --accept-license"
            )


def _used(recipe: Recipe) -> Sequence[str]:
    """Ids of all models that stages begin with or are taught by; the empty one for the recipe's own."""
    known = {stage.name for stage in recipe.stage}
    teachers = [stage.dmd.teacher for stage in recipe.stage if stage.dmd and stage.dmd.teacher not in known]
    return tuple(dict.fromkeys([*(stage.begins for stage in recipe.stage), *teachers]))


def material_of(recipe: Recipe, models: Models, shards: Path, place: Place) -> Material:
    """What the stages of a recipe learn from. Raises UserError where weights or clips are not there or do not fit."""
    for name in _used(recipe):
        models(name).home("dit")
    lengths = {length for stage in recipe.stage for length in stage.frames}
    shelf, preset = read_shelf(shards, sorted(lengths)), models("").preset
    schedule = make_schedule(preset.steps, preset.shift, preset.warp)
    pools = {length: held_out(pool) for length, pool in shelf.pools.items()}

    def decode(latents: torch.Tensor) -> torch.Tensor:
        vae = models("").load_vae(place.device)  # comes and goes: there are hours between two sheets
        return vae.decode(latents, vae.new_decoder_state()).float() / 2 + 0.5

    def showing(length: int) -> Showing | None:
        _, apart = pools[length]
        return Showing(apart, shelf.sentences, decode, schedule) if len(apart) else None

    return Material(
        new_dit=lambda name, frozen: models(name).load_dit(
            torch.device("cpu"), torch.bfloat16 if frozen else torch.float32
        ),
        pools=lambda lengths: tuple(pools[length][0] for length in lengths),
        sentences=shelf.sentences,
        negative=shelf.negative,
        schedule=schedule,
        per_block=preset.per_block,
        place=place,
        showing=showing,
    )


def load_of(stage: StageRecipe, preset: Preset, pools: Sequence[Latents]) -> Load:
    """What decides the memory of a stage: its longest clips do."""
    clean = max((pool.clean for pool in pools), key=lambda clean: clean.shape[1])
    return Load(
        preset.dit,
        latents=clean.shape[1],
        height=clean.shape[3],
        width=clean.shape[4],
        batch=stage.batch,
        per_block=preset.per_block,
        lora_rank=stage.lora_rank,
        dmd=stage.dmd is not None,
        graph=stage.graph,
        recompute=stage.recompute,
        offload=stage.offload,
        rolls_out=stage.kind == "rollout",
    )


def needs(recipe: Recipe, models: Models, material: Material) -> Mapping[str, Mapping[str, int]]:
    """Device memory of each stage, by what it is for."""
    preset = models("").preset
    return {s.name: needed(load_of(s, preset, material.pools(tuple(s.frames)))) for s in recipe.stage}


def write_model(recipe: Recipe, models: Models, folder: Path) -> Path:
    """The folder that `sfserver models` lists, of what the last stage has left, and its additions beside it."""
    last, source, out = recipe.stage[-1], models(recipe.stage[-1].begins), folder / MODEL_FOLDER
    weights, dit = averages_of(folder / last.name), source.home("dit") / FILE_OF_ROLE["dit"]
    loras: tuple[tuple[Path, float], ...] = ()
    with tempfile.TemporaryDirectory() as name:
        _write_sizes(source, Path(name))
        if last.lora_rank:
            (Path(name) / dit.name).symlink_to(dit.absolute())
            with torch.device("meta"):
                names = Lora(Dit(source.preset.dit), last.lora_rank, step_random(0, 0))
            loras = ((write_lora(names, weights, folder / "lora"), 1.0),)
        else:
            save_file({key: value.contiguous() for key, value in weights.items()}, Path(name) / dit.name)
        convert(Path(name), out, Wish(preset=source.preset.id, roles=("dit",), loras=loras))
    _link_the_rest(source, out)
    return out


def _write_sizes(source: Published, folder: Path) -> None:
    c = source.preset.dit
    sizes = {"num_heads": c.heads, "text_len": c.text_len, "text_dim": c.text_dim, "freq_dim": c.freq_dim}
    (folder / "config.json").write_text(json.dumps(sizes), "utf-8")


def _link_the_rest(source: Published, folder: Path) -> None:
    components = {}
    for role in ("vae", "text", "tokenizer"):
        home = source.home(role)
        components[role] = loading.component_of(home, role)
        link = folder / components[role].file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to((home / components[role].file).absolute())
    manifest: Manifest = merged(folder, components, source.preset.id)
    write_manifest(folder, manifest)
