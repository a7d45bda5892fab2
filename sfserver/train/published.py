"""Models that others have published, as training begins with them: where their parts are."""

from __future__ import annotations

from pathlib import Path

import torch
from attrs import frozen

from ..engine.presets import WAN_NEGATIVE, Preset, Role, find
from ..errors import UserError
from ..model.dit import Dit
from ..model.tae import Tae
from ..model.text import TextEncoder, clean_prompt
from ..model.vae import WanVae
from ..weights import loading
from ..weights.manifest import problem

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
