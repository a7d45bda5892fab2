"""Names: each published spelling becomes ours, by rule, and the reference's own key maps say the same."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sfserver.weights.dialects import dit_name, text_name, unwrapped, vae_name

GOLDEN = Path(os.environ.get("SF_GOLDEN", Path(__file__).parents[3] / "shared" / "reference" / "golden"))
NAME = "blocks.0.self_attn.q.weight"


def key_map(name: str) -> dict[str, str]:
    path = GOLDEN / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no golden files: {path} does not exist; SF_GOLDEN names another folder")
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize(("network", "rename"), [("dit", dit_name), ("vace", dit_name), ("vae", vae_name)])
def test_rules_say_what_the_reference_key_maps_say(network: str, rename) -> None:
    pairs = key_map(f"keymap_{network}_official_to_diffusers")
    assert len(pairs) > 50
    assert {official: rename(theirs) for official, theirs in pairs.items()} == {
        official: official for official in pairs
    }


@pytest.mark.parametrize(("network", "rename"), [("dit", dit_name), ("vace", dit_name), ("vae", vae_name)])
def test_official_names_stay_as_they_are(network: str, rename) -> None:
    for official in key_map(f"keymap_{network}_official_to_diffusers"):
        assert rename(official) == official


def test_text_rules_say_what_the_reference_key_map_says() -> None:
    for official, transformers in key_map("t5")["hf_key_map"]:
        official, transformers = (name.replace("{i}", "17") for name in (official, transformers))
        assert (
            text_name(official)
            == text_name(transformers)
            == transformers.removeprefix("encoder.").replace("shared.", "embed_tokens.")
        )


@pytest.mark.parametrize(
    "published",
    [
        NAME,
        f"model.{NAME}",
        f"diffusion_model.{NAME}",
        f"model.diffusion_model.{NAME}",
        f"model._fsdp_wrapped_module.{NAME}",
        "model._fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.self_attn.q.weight",
        "model.blocks.0._checkpoint_wrapped_module.self_attn.q.weight",
        f"_orig_mod.model.{NAME}",
        f"model._orig_mod.{NAME}",
    ],
)
def test_wrappers_and_prefixes_are_taken_off(published: str) -> None:
    assert unwrapped(published) == dit_name(published) == NAME
