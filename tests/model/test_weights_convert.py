"""Every published layout becomes one model folder, and what is loaded from that is what was published."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import published
import pytest
import torch
from attrs import evolve
from networks import toy_dit, toy_vace
from published import dit_tensors, prefixed, save, vace_tensors, write_config
from safetensors.torch import load_file
from torch import Tensor

from sfserver.model.config import TOY_VACE
from sfserver.model.vae import StreamState
from sfserver.weights import describe_folder, problem
from sfserver.weights.convert import Wish, convert
from sfserver.weights.files import WeightsError
from sfserver.weights.loading import load_clean, load_tae, load_text_encoder, load_transformer, load_vae, text_identity

CPU = torch.device("cpu")
EXACT = Wish(dtype=torch.float32)
NAME = "blocks.1.self_attn.q.weight"


def assert_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert set(actual) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, atol=0, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def write_bare(folder: Path) -> Path:
    return save(folder / "diffusion_pytorch_model.safetensors", dit_tensors())


def write_self_forcing(folder: Path) -> Path:
    plain = prefixed("model.", {name: value + 1 for name, value in dit_tensors().items()})
    torch.save({"generator": plain, "generator_ema": prefixed("model.", dit_tensors()), "step": 7}, folder / "dmd.pt")
    return folder / "dmd.pt"


def write_training_dump(folder: Path) -> Path:
    """An average as derived repositories dump it: FSDP and torch.compile in the middle of names."""
    inside = {n.replace("blocks.1.", "blocks.1._fsdp_wrapped_module."): v for n, v in dit_tensors().items()}
    torch.save({"generator_ema": prefixed("model._fsdp_wrapped_module._orig_mod.", inside)}, folder / "dump.pt")
    return folder / "dump.pt"


def write_causvid(folder: Path) -> Path:
    torch.save({"generator": prefixed("model.", dit_tensors())}, folder / "model.pt")
    return folder / "model.pt"


def write_beside_a_tensor(folder: Path) -> Path:
    """The step counted in a tensor, which makes the outermost dictionary look like one of weights."""
    tensors = prefixed("model.", dit_tensors())
    torch.save({"generator_ema": {}, "generator": tensors, "step": torch.tensor(5)}, folder / "model.pt")
    return folder / "model.pt"


def write_prefixed(folder: Path) -> Path:
    return save(folder / "krea.safetensors", prefixed("model.", dit_tensors()))


def write_comfy(folder: Path) -> Path:
    return save(folder / "comfy.safetensors", prefixed("model.diffusion_model.", dit_tensors()))


def write_sharded(folder: Path) -> Path:
    tensors = dit_tensors()
    names = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for shard in set(names.values()):
        save(folder / shard, {name: value for name, value in tensors.items() if names[name] == shard})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


@pytest.mark.parametrize(
    "write",
    [
        write_bare,
        write_self_forcing,
        write_training_dump,
        write_causvid,
        write_beside_a_tensor,
        write_prefixed,
        write_comfy,
        write_sharded,
    ],
)
def test_each_layout_of_a_transformer_loads_to_the_last_bit(write: Callable[[Path], Path], tmp_path: Path) -> None:
    source = tmp_path / "published"
    source.mkdir()
    write_config(source)
    manifest = convert(write(source), tmp_path / "model", EXACT)
    assert list(manifest.components) == ["dit"]
    dit, vace = load_transformer(tmp_path / "model", None, CPU, torch.float32)
    assert vace is None
    assert dit.config == evolve(TOY_VACE, vace_layers=())
    assert_same(dit.state_dict(), toy_dit().state_dict())


def test_preset_that_prefers_the_plain_generator_gets_it(tmp_path: Path) -> None:
    write_config(tmp_path)
    convert(write_self_forcing(tmp_path), tmp_path / "model", evolve(EXACT, prefer=("generator", "model")))
    dit, _ = load_transformer(tmp_path / "model", None, CPU, torch.float32)
    assert_same(dit.state_dict(), {name: value + 1 for name, value in toy_dit().state_dict().items()})
    assert describe_folder(tmp_path / "model").components["dit"].dialect == "torch checkpoint, generator, renamed"


def test_matrices_are_written_in_bf16_and_what_is_computed_in_float32_as_it_came(tmp_path: Path) -> None:
    write_config(tmp_path)
    convert(write_bare(tmp_path), tmp_path / "model")
    written = load_file(tmp_path / "model" / "dit.safetensors")
    assert torch.equal(written[NAME], dit_tensors()[NAME].bfloat16())
    for name in ("time_projection.1.weight", "blocks.0.modulation", "blocks.0.norm3.weight", "head.head.weight"):
        assert torch.equal(written[name], dit_tensors()[name]), name
    assert describe_folder(tmp_path / "model").components["dit"].dtype == "bfloat16"


def test_transformer_and_vace_in_one_file_become_two_components(tmp_path: Path) -> None:
    write_config(tmp_path)
    both = prefixed("model.diffusion_model.", dit_tensors() | vace_tensors())
    manifest = convert(save(tmp_path / "merge.safetensors", both), tmp_path / "model", EXACT)
    assert list(manifest.components) == ["dit", "vace"]
    dit, vace = load_transformer(tmp_path / "model", tmp_path / "model", CPU, torch.float32)
    assert vace is not None
    assert dit.config == vace.config == TOY_VACE
    assert_same(dit.state_dict(), toy_dit().state_dict())
    assert_same(vace.state_dict(), toy_vace().state_dict())


def test_only_the_wanted_roles_of_a_file_are_written(tmp_path: Path) -> None:
    write_config(tmp_path)
    source = save(tmp_path / "merge.safetensors", dit_tensors() | vace_tensors())
    assert list(convert(source, tmp_path / "model", Wish(roles=("vace",))).components) == ["vace"]
    assert not (tmp_path / "model" / "dit.safetensors").exists()


def test_vace_module_file_joins_the_transformer_of_another_folder(tmp_path: Path) -> None:
    write_config(tmp_path)
    convert(write_bare(tmp_path), tmp_path / "base", EXACT)
    convert(save(tmp_path / "vace_module.safetensors", vace_tensors()), tmp_path / "module", EXACT)
    dit, vace = load_transformer(tmp_path / "base", tmp_path / "module", CPU, torch.float32)
    assert vace is not None
    assert dit.config.vace_layers == vace.config.vace_layers == TOY_VACE.vace_layers
    assert_same(vace.state_dict(), toy_vace().state_dict())


@pytest.mark.parametrize("suffix", [".scale_weight", ".weight_scale"])
def test_scaled_fp8_is_multiplied_out(tmp_path: Path, suffix: str) -> None:
    write_config(tmp_path)
    tensors, expected = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, {}
    for name, value in dit_tensors().items():
        if name.startswith("blocks.") and value.ndim == 2:
            scale = value.abs().max() / 448
            tensors[name] = (value / scale).to(torch.float8_e4m3fn)
            tensors[name.removesuffix(".weight") + suffix] = scale
            tensors[name.removesuffix(".weight") + ".scale_input"] = torch.ones(())
            expected[name] = tensors[name].float() * scale
        else:
            tensors[name] = expected[name] = value
    source = save(tmp_path / "fp8.safetensors", prefixed("model.diffusion_model.", tensors))
    convert(source, tmp_path / "model", EXACT)
    dit, _ = load_transformer(tmp_path / "model", None, CPU, torch.float32)
    assert_same(dit.state_dict(), expected)
    torch.testing.assert_close(dit.state_dict()[NAME], dit_tensors()[NAME], atol=0.02, rtol=0.07)


@pytest.mark.parametrize("shape", [(), (1,), (96,), (96, 1)])
def test_fp8_scales_may_be_one_for_each_matrix_or_row(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_config(tmp_path)
    tensors = dit_tensors()
    scale = torch.rand(shape) + 0.5
    expected = (tensors[NAME].to(torch.float8_e4m3fn).float().T * scale.flatten()).T
    tensors |= {NAME: tensors[NAME].to(torch.float8_e4m3fn), NAME.replace(".weight", ".scale_weight"): scale}
    convert(save(tmp_path / "fp8.safetensors", tensors), tmp_path / "model", EXACT)
    torch.testing.assert_close(load_file(tmp_path / "model" / "dit.safetensors")[NAME], expected)


def test_scaled_fp8_that_lost_a_scale_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path)
    other, tensors = NAME.replace("blocks.1", "blocks.0"), dit_tensors()
    for name in (NAME, other):
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    tensors[NAME.replace(".weight", ".scale_weight")] = torch.ones(())
    with pytest.raises(WeightsError, match=r"blocks\.0.* has no scale"):
        convert(save(tmp_path / "fp8.safetensors", tensors), tmp_path / "model", EXACT)


def test_embedding_that_is_stored_under_both_of_its_names_is_taken_once(tmp_path: Path) -> None:
    tensors = {f"encoder.{name}": value for name, value in published.text_tensors().items()}
    tensors["shared.weight"] = tensors["encoder.embed_tokens.weight"]
    convert(save(tmp_path / "text.safetensors", tensors), tmp_path / "model", EXACT)
    assert_same(load_file(tmp_path / "model" / "text.safetensors"), published.text_tensors())


def test_fp8_without_scales_is_taken_as_it_is(tmp_path: Path) -> None:
    text = {name: value.to(torch.float8_e4m3fn) for name, value in published.official_text_tensors().items()}
    convert(save(tmp_path / "t5_fp8.safetensors", text), tmp_path / "model", EXACT)
    written = load_file(tmp_path / "model" / "text.safetensors")
    assert torch.equal(written["embed_tokens.weight"], text["token_embedding.weight"].float())


def test_official_repository_becomes_a_model_that_runs(tmp_path: Path) -> None:
    source, folder = published.write_official_repository(tmp_path / "published"), tmp_path / "model"
    manifest = convert(source, folder, evolve(EXACT, preset="self-forcing-vace"))
    assert set(manifest.components) == {"dit", "vace", "vae", "text", "tokenizer"}
    assert manifest == describe_folder(folder)
    assert manifest.preset == "self-forcing-vace"
    assert manifest.total_bytes == sum(
        p.stat().st_size for p in folder.rglob("*") if p.name != "model.json" and p.is_file()
    )
    for role, component in manifest.components.items():
        path = folder / "tokenizer" if role == "tokenizer" else folder / component.file
        assert problem(path, role) is None

    _, vace = load_transformer(folder, folder, CPU, torch.float32, expect=TOY_VACE)
    assert vace is not None
    vae = load_vae(folder, CPU, torch.float32)
    assert_same(vae.state_dict(), published.vae_tensors())
    assert vae.decode(torch.randn(1, 2, 16, 2, 2), StreamState()).shape == (1, 5, 3, 16, 16)
    encoder = load_text_encoder(folder, folder, CPU, torch.float32)
    assert_same(encoder.stack.state_dict(), published.text_tensors())
    assert encoder.encode("a cat walks").shape[1] == TOY_VACE.text_dim
    assert len(text_identity(folder, folder)) == 128


def test_diffusers_folder_becomes_the_same_model(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="the test extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the test extra is not installed")
    theirs = diffusers.WanVACETransformer3DModel(
        num_attention_heads=TOY_VACE.heads,
        attention_head_dim=TOY_VACE.head_dim,
        ffn_dim=TOY_VACE.ffn_dim,
        num_layers=TOY_VACE.layers,
        text_dim=TOY_VACE.text_dim,
        freq_dim=TOY_VACE.freq_dim,
        vace_layers=list(TOY_VACE.vace_layers),
        vace_in_channels=TOY_VACE.vace_in_channels,
    )
    text = transformers.UMT5EncoderModel(
        transformers.UMT5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=2)
    )
    theirs.save_pretrained(tmp_path / "pipe" / "transformer")
    diffusers.AutoencoderKLWan(base_dim=6).save_pretrained(tmp_path / "pipe" / "vae")
    text.save_pretrained(tmp_path / "pipe" / "text_encoder")
    convert(tmp_path / "pipe", tmp_path / "model", EXACT)
    dit, vace = load_transformer(tmp_path / "model", tmp_path / "model", CPU, torch.float32)
    assert vace is not None
    assert (dit.config.heads, dit.config.vace_layers) == (TOY_VACE.heads, TOY_VACE.vace_layers)
    norm2 = theirs.state_dict()["blocks.1.norm2.weight"]
    assert torch.equal(dit.state_dict()["blocks.1.norm3.weight"], norm2)
    last = theirs.state_dict()["vace_blocks.1.proj_out.weight"]
    assert torch.equal(vace.state_dict()["vace_blocks.1.after_proj.weight"], last)
    load_vae(tmp_path / "model", CPU, torch.float32)
    written = load_file(tmp_path / "model" / "text.safetensors")
    assert torch.equal(written["embed_tokens.weight"], text.state_dict()["shared.weight"])


def test_tae_with_spare_rows_keeps_the_last_ones(tmp_path: Path) -> None:
    tensors = dict(published.tae_tensors())
    first = tensors["decoder.7.conv.weight"]
    tensors["decoder.7.conv.weight"] = torch.cat([torch.full_like(first, 9.0), first])
    convert(save(tmp_path / "taew2_1.safetensors", tensors), tmp_path / "model", EXACT)
    tae = load_tae(tmp_path / "model", CPU, torch.float32)
    assert_same(tae.state_dict(), published.tae_tensors())
    assert not tae.config.vae_scale


def test_light_tae_is_told_apart_by_its_name(tmp_path: Path) -> None:
    convert(save(tmp_path / "lighttaew2_1.safetensors", published.tae_tensors()), tmp_path / "model", EXACT)
    assert load_tae(tmp_path / "model", CPU, torch.float32).config.vae_scale


def test_folder_keeps_what_it_held_when_more_is_converted_into_it(tmp_path: Path) -> None:
    convert(save(tmp_path / "vae.safetensors", published.vae_tensors()), tmp_path / "model", Wish(preset="longlive"))
    manifest = convert(save(tmp_path / "tae.safetensors", published.tae_tensors()), tmp_path / "model")
    assert set(manifest.components) == {"vae", "tae"}
    assert manifest.preset == "longlive"


def test_progress_counts_every_tensor(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    source = save(tmp_path / "tae.safetensors", published.tae_tensors())
    convert(source, tmp_path / "model", Wish(on_progress=lambda *step: seen.append(step)))
    count = len(published.tae_tensors())
    assert seen == [("tae", i + 1, count) for i in range(count)]


def test_asking_a_folder_needs_no_torch(tmp_path: Path) -> None:
    convert(save(tmp_path / "tae.safetensors", published.tae_tensors()), tmp_path / "model")
    script = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path; from sfserver.weights import *;"
        "folder = Path(sys.argv[1]); print(list(describe_folder(folder).components), problem(folder / 'x', 'tae'))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model"], capture_output=True, text=True, timeout=200, check=True
    )
    assert answer.stdout.strip() == f"['tae'] {tmp_path / 'model' / 'x'} is not there"


def second_of(name: str) -> str:
    """What Self Gradient Forcing+ calls a tensor of its second transformer."""
    stem, dot, last = name.rpartition(".")
    if re.match(r"blocks\.\d+\.", name) and last in ("weight", "bias", "modulation"):
        return f"{stem}{dot}memory_{last}"
    return f"memory_{name}"


def test_two_transformers_in_one_file_become_two_files(tmp_path: Path) -> None:
    first, second = dit_tensors(), {name: value + 1 for name, value in dit_tensors().items()}
    write_config(tmp_path)
    both = {**first, **{second_of(name): value for name, value in second.items()}}
    torch.save({"generator_ema": prefixed("model.", both)}, tmp_path / "model.pt")
    folder = tmp_path / "out"
    manifest = convert(tmp_path / "model.pt", folder, EXACT)
    assert set(manifest.components) == {"dit", "clean"}
    assert_same(load_file(folder / "dit.safetensors"), first)
    assert_same(load_file(folder / "clean.safetensors"), second)
    dit, _ = load_transformer(folder, None, CPU, torch.float32)
    clean = load_clean(folder, dit, CPU, torch.float32)
    assert_same(clean.state_dict(), second)
    lacking = {name: value for name, value in both.items() if name != "blocks.0.memory_modulation"}
    torch.save({"generator_ema": prefixed("model.", lacking)}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"fit a clean: 1 of .* missing, the first is blocks.0.modulation"):
        convert(tmp_path / "model.pt", folder, EXACT)
