"""One golden file: a sidecar that says what was run, and tensors that went in and came out.

A case notes which of its tensors were used, so that a file whose contents are only half compared is a failure.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(os.environ.get("SF_GOLDEN", Path(__file__).parents[3] / "shared" / "reference" / "golden"))


class Case:
    def __init__(self, sidecar_path: Path):
        self.folder = sidecar_path.parent
        self.name = sidecar_path.stem
        self.sidecar: dict[str, Any] = json.loads(sidecar_path.read_text("utf-8"))
        self.tensors = load_file(sidecar_path.with_suffix(".safetensors"))
        self._used: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def take(self, key: str) -> Tensor:
        """An input."""
        self._used.add(key)
        return self.tensors[key]

    def expect(self, key: str, actual: Tensor) -> None:
        """An output: `actual` must equal it to the sidecar's tolerance, where the file has it."""
        if key not in self.tensors:
            return
        tolerance = self.sidecar["tolerance"]
        expected = self.take(key)
        torch.testing.assert_close(
            actual.to(expected.dtype),
            expected,
            atol=tolerance["atol"],
            rtol=tolerance.get("rtol", 0.0),
            msg=lambda text: f"{self.name}, {key}: {text}",
        )

    def weights(self, field: str = "weights") -> dict[str, Tensor]:
        """The weights that the sidecar names, of one file or several."""
        names = self.sidecar[field]
        files = [names] if isinstance(names, str) else names
        return {key: value for f in files for key, value in load_file(self.folder / f"{f}.safetensors").items()}

    def unused(self) -> list[str]:
        return sorted(set(self.tensors) - self._used)
