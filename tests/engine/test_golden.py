"""The reference's own numbers, file by file. A new file of a known kind is a new test; one of an unknown kind fails.

The folder is named by SF_GOLDEN. Tolerances are the sidecars'.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden_codecs
import golden_transformer
import pytest
import torch
from golden_case import FOLDER, Case

Sidecar = dict[str, Any]
RUNNERS: dict[str, Callable[[Case], None]] = {**golden_transformer.RUNNERS, **golden_codecs.RUNNERS}


def _tensors_start_with(*prefixes: str) -> Callable[[Sidecar], bool]:
    return lambda sidecar: any(key.startswith(prefixes) for key in sidecar["tensors"])


KINDS: tuple[tuple[str, Callable[[Sidecar], bool]], ...] = (
    ("causal", lambda sidecar: "trace" in sidecar),
    ("vace_context", lambda sidecar: "n_pixel_frames" in sidecar),
    ("vace_bidirectional", lambda sidecar: "vace_layers" in sidecar),
    ("bidirectional", _tensors_start_with("inter/")),
    ("scheduler", _tensors_start_with("lookup/")),
    ("rope_time", _tensors_start_with("sinusoid")),
    ("t5", lambda sidecar: "num_buckets" in sidecar.get("config", {})),
    ("taehv", lambda sidecar: "n_f" in sidecar),
    ("vae", lambda sidecar: "temperal_downsample" in sidecar.get("config", {})),
)
"""What a sidecar's fields say about its kind; the first that holds decides."""


def kind_of(sidecar: Sidecar) -> str:
    for kind, holds in KINDS:
        if holds(sidecar):
            return kind
    raise AssertionError(f"{sidecar['name']}: no runner knows a file with these fields: {', '.join(sidecar)}")


def case_files(folder: Path) -> list[Path]:
    """Sidecars of runs. Weights, which others name or which are nothing else, and key maps and notes are none."""
    sidecars = {path: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}
    weights: set[str] = set()
    for sidecar in sidecars.values():
        for named in (sidecar.get("weights", []), sidecar.get("vae", [])):
            weights.update([named] if isinstance(named, str) else named)
    return [
        path
        for path, sidecar in sidecars.items()
        if "tensors" in sidecar and path.stem not in weights and not _holds_parameters_alone(sidecar)
    ]


def _holds_parameters_alone(sidecar: Sidecar) -> bool:
    return all(name.endswith((".weight", ".bias", ".gamma", ".modulation")) for name in sidecar["tensors"])


def test_golden_folder_holds_cases() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"no golden files: {FOLDER} does not exist; SF_GOLDEN names another folder")
    assert case_files(FOLDER)


@pytest.mark.parametrize("path", case_files(FOLDER), ids=lambda path: path.stem)
@torch.no_grad()
def test_equals_the_reference(path: Path) -> None:
    case = Case(path)
    RUNNERS[kind_of(case.sidecar)](case)
    assert not case.unused(), f"{path.stem}: tensors that were not compared"


def test_new_file_of_a_known_kind_is_a_new_case(tmp_path: Path) -> None:
    write_sidecar(tmp_path, "causal_new", trace=[], weights="some_weights", tensors={"latents": []})
    write_sidecar(tmp_path, "some_weights", tensors={"blocks.0.weight": []})
    write_sidecar(tmp_path, "keymap", mapping={})
    assert [path.stem for path in case_files(tmp_path)] == ["causal_new"]
    assert kind_of(json.loads((tmp_path / "causal_new.json").read_text("utf-8"))) == "causal"


def test_weights_that_no_run_names_are_no_case(tmp_path: Path) -> None:
    write_sidecar(tmp_path, "vace_weights", vace_layers=[0], tensors={"a.weight": [], "a.bias": [], "b.modulation": []})
    assert not case_files(tmp_path)
    write_sidecar(tmp_path, "its_own_weights", n_f=[], tensors={"w.a.weight": [], "latents": []})
    assert [path.stem for path in case_files(tmp_path)] == ["its_own_weights"]


def test_file_of_an_unknown_kind_fails_and_is_not_passed_over(tmp_path: Path) -> None:
    write_sidecar(tmp_path, "mystery", tensors={"x": []})
    (path,) = case_files(tmp_path)
    with pytest.raises(AssertionError, match="mystery: no runner knows"):
        kind_of(json.loads(path.read_text("utf-8")))


def write_sidecar(folder: Path, name: str, **fields: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"name": name, **fields}), "utf-8")
