"""Downloads: resumed, checked against the hub's hash, converted; whatever goes wrong is one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import published
import pytest
import torch
from attrs import evolve
from published import dit_tensors, save, vace_tensors
from toy_hub import ToyHub, serving

from sfserver import room
from sfserver.engine.presets import SELF_FORCING_VACE, Part, Preset, Source
from sfserver.fetch import DOWNLOADS, FetchError, LicenceError, download, fetch, licences
from sfserver.model.config import TOY_VACE
from sfserver.weights import WeightsError, describe_folder, problem
from sfserver.weights.loading import load_text_encoder, load_transformer

REPOSITORY = "somebody/model"
BIG = Source(REPOSITORY, "weights/big.bin", "Apache-2.0")
CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyHub]:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 64 * 1024)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's library waits before it tries again
    with serving() as toy:
        toy.files[REPOSITORY, BIG.file] = CONTENT
        yield toy


def get(hub: ToyHub, folder: Path, source: Source = BIG, **options) -> Path:
    return download(source, folder, endpoint=hub.endpoint, **options)


def test_file_arrives_and_progress_counts_its_bytes(hub: ToyHub, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = get(hub, tmp_path, on_progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    assert seen[-1] == (BIG.file, len(CONTENT), len(CONTENT))
    assert len(seen) > 3


def test_file_that_is_there_is_not_downloaded_again(hub: ToyHub, tmp_path: Path) -> None:
    get(hub, tmp_path)
    get(hub, tmp_path)
    assert len(hub.downloads("big.bin")) == 1


def test_file_that_changed_on_the_hub_is_downloaded_again(hub: ToyHub, tmp_path: Path) -> None:
    get(hub, tmp_path)
    hub.files[REPOSITORY, BIG.file] = CONTENT[::-1]
    assert get(hub, tmp_path).read_bytes() == CONTENT[::-1]


def test_interrupted_download_goes_on_where_it_stopped(hub: ToyHub, tmp_path: Path) -> None:
    def interrupt(name: str, done: int, of: int) -> None:
        if done > of // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(hub, tmp_path, on_progress=interrupt)
    (partial,) = tmp_path.rglob("*.part")
    there = partial.stat().st_size
    assert len(CONTENT) // 2 < there < len(CONTENT)
    assert get(hub, tmp_path).read_bytes() == CONTENT
    assert [request.range for request in hub.downloads("big.bin")] == [None, f"bytes={there}-"]


def test_dropped_connection_is_taken_up_again(hub: ToyHub, tmp_path: Path) -> None:
    hub.break_after[BIG.file] = 300_000
    assert get(hub, tmp_path).read_bytes() == CONTENT
    first, second = hub.downloads("big.bin")
    assert first.range is None
    assert second.range.startswith("bytes=")


def test_partial_file_that_was_spoiled_is_noticed_and_begun_anew(hub: ToyHub, tmp_path: Path) -> None:
    def interrupt(name: str, done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(hub, tmp_path, on_progress=interrupt)
    (partial,) = tmp_path.rglob("*.part")
    partial.write_bytes(bytes(partial.stat().st_size))
    with pytest.raises(FetchError, match="came with hash"):
        get(hub, tmp_path)
    assert get(hub, tmp_path).read_bytes() == CONTENT


def test_corrupted_file_is_refused_and_not_kept(hub: ToyHub, tmp_path: Path) -> None:
    hub.corrupt.add(BIG.file)
    with pytest.raises(FetchError, match=r"big\.bin: came with hash .* where the hub names .*; try again"):
        get(hub, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_small_file_is_checked_by_gits_own_hash(hub: ToyHub, tmp_path: Path) -> None:
    hub.small.add(BIG.file)
    assert get(hub, tmp_path).read_bytes() == CONTENT
    hub.corrupt.add(BIG.file)
    with pytest.raises(FetchError, match="came with hash"):
        get(hub, tmp_path / "again")


def test_token_is_not_sent_to_the_host_that_holds_the_bytes(
    hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.bytes_elsewhere = True
    assert get(hub, tmp_path).read_bytes() == CONTENT
    (bytes_request,) = [request for request in hub.requests if request.path.startswith("/bytes/")]
    assert bytes_request.host.startswith("localhost")
    assert bytes_request.token is None
    hub.bytes_elsewhere = False
    get(hub, tmp_path / "again")
    assert hub.requests[-1].token == "Bearer hf_secret", "the hub itself gets it, or this test proves nothing"


def test_folder_of_files_arrives_whole(hub: ToyHub, tmp_path: Path) -> None:
    hub.files |= {(REPOSITORY, f"tokens/{name}"): name.encode() for name in ("a.json", "b.model")}
    folder = get(hub, tmp_path, Source(REPOSITORY, "tokens/", "Apache-2.0"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.json": b"a.json", "b.model": b"b.model"}


def test_folder_cannot_name_files_elsewhere(hub: ToyHub, tmp_path: Path) -> None:
    hub.files[REPOSITORY, "tokens/../../../evil"] = b"evil"
    with pytest.raises(FetchError, match="as a file of tokens; refused"):
        get(hub, tmp_path, Source(REPOSITORY, "tokens/", "Apache-2.0"))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (evolve(BIG, file="weights/gone.bin"), "has no weights/gone.bin; it may have been renamed"),
        (evolve(BIG, repository="nobody/nothing"), "there is no repository nobody/nothing"),
        (evolve(BIG, file="empty/"), "has no files in empty"),
    ],
)
def test_what_is_not_there_is_named(hub: ToyHub, tmp_path: Path, source: Source, sentence: str) -> None:
    with pytest.raises(FetchError) as error:
        get(hub, tmp_path, source)
    assert sentence in str(error.value)


def test_gated_repository_says_how_to_get_in(hub: ToyHub, tmp_path: Path) -> None:
    hub.gated.add(REPOSITORY)
    with pytest.raises(FetchError, match="is shared on request only; accept its terms on its page, then set HF_TOKEN"):
        get(hub, tmp_path)


def test_server_without_hashes_is_no_hub(hub: ToyHub, tmp_path: Path) -> None:
    hub.no_hash = True
    with pytest.raises(
        FetchError, match="names neither hash nor size, so it is no Hugging Face hub; check HF_ENDPOINT"
    ):
        get(hub, tmp_path)


def test_hub_that_cannot_be_reached_is_said_so(tmp_path: Path) -> None:
    with serving() as hub:
        endpoint = hub.endpoint
    with pytest.raises(FetchError, match=r"cannot be reached .*; check the network or HF_ENDPOINT"):
        download(BIG, tmp_path, endpoint=endpoint)


def test_full_disk_is_noticed_before_the_download(hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(FetchError, match=r"needs 0\.0 GB .* make room, or set SFSERVER_MODELS_DIR"):
        get(hub, tmp_path)
    assert hub.downloads("big.bin") == []


# Whole presets --------------------------------------------------------------------------------------------------------


def toy_preset(**changes) -> Preset:
    """A preset of toy size, its files where the published ones' are."""
    source = Source(REPOSITORY, "dit.safetensors", "Apache-2.0")
    parts = (
        Part("dit", "toy/dit.safetensors", source),
        Part("vae", "common/vae.safetensors", evolve(source, file="Wan2.1_VAE.pth")),
        Part("tae", "tiny/tae.safetensors", evolve(source, file="taew2_1.safetensors"), optional=True),
        Part("text", "common/text.safetensors", evolve(source, file="models_t5.pth")),
        Part("tokenizer", "common/tokenizer/", evolve(source, file="google/umt5-xxl/")),
        Part("vace", "vace/vace.safetensors", evolve(source, file="vace.safetensors")),
    )
    return evolve(SELF_FORCING_VACE, id="toy", dit=TOY_VACE, **{"parts": parts, **changes})


@pytest.fixture
def stocked(hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyHub:
    """The hub with everything that the toy preset names."""
    monkeypatch.setattr("sfserver.weights.identify.HEADS_OF_DIM", {TOY_VACE.dim: TOY_VACE.heads})
    monkeypatch.setattr("sfserver.weights.identify.LAYERS_OF_DIM", {TOY_VACE.dim: TOY_VACE.layers})
    written = tmp_path / "published"
    save(written / "dit.safetensors", dit_tensors())
    save(written / "vace.safetensors", vace_tensors())
    save(written / "taew2_1.safetensors", published.tae_tensors())
    torch.save(dict(published.vae_tensors()), written / "Wan2.1_VAE.pth")
    torch.save(published.official_text_tensors(), written / "models_t5.pth")
    (written / "google/umt5-xxl").mkdir(parents=True)
    (written / "google/umt5-xxl/spiece.model").write_bytes(published.tokenizer_bytes())
    (written / "google/umt5-xxl/tokenizer_config.json").write_text("{}")
    for path in written.rglob("*"):
        if path.is_file():
            hub.files[REPOSITORY, path.relative_to(written).as_posix()] = path.read_bytes()
    return hub


def test_preset_is_complete_once_it_was_fetched(stocked: ToyHub, tmp_path: Path) -> None:
    models, preset = tmp_path / "models", toy_preset()
    seen: set[str] = set()
    notes = fetch(preset, models, on_progress=lambda what, done, of: seen.add(what), endpoint=stocked.endpoint)
    assert notes == []
    assert [problem(models / part.path, part.role) for part in preset.parts] == [None] * len(preset.parts)
    assert {"dit.safetensors", "converting dit", "converting text"} <= seen
    assert not (models / DOWNLOADS).exists()
    assert describe_folder(models / "toy").preset == "toy"
    assert describe_folder(models / "common").preset == ""
    load_transformer(models / "toy", models / "vace", torch.device("cpu"), torch.float32)
    load_text_encoder(models / "common", models / "common", torch.device("cpu"), torch.float32).encode("a cat")

    asked = len(stocked.requests)
    fetch(preset, models, endpoint=stocked.endpoint)
    assert len(stocked.requests) == asked, "what is there is not asked for"


def test_missing_optional_part_is_noted_and_a_needed_one_fails(stocked: ToyHub, tmp_path: Path) -> None:
    del stocked.files[REPOSITORY, "taew2_1.safetensors"]
    (note,) = fetch(toy_preset(), tmp_path / "models", endpoint=stocked.endpoint)
    assert "has no taew2_1.safetensors" in note
    assert note.endswith("(toy runs without it)")
    del stocked.files[REPOSITORY, "models_t5.pth"]
    with pytest.raises(FetchError, match=r"has no models_t5\.pth"):
        fetch(toy_preset(), tmp_path / "other", endpoint=stocked.endpoint)


def test_lora_of_a_preset_is_merged_on_the_way(stocked: ToyHub, tmp_path: Path) -> None:
    name = "blocks.0.self_attn.q"
    up, down = torch.ones(TOY_VACE.dim, 2), torch.ones(2, TOY_VACE.dim)
    lora = {f"diffusion_model.{name}.lora_up.weight": up, f"diffusion_model.{name}.lora_down.weight": down}
    stocked.files[REPOSITORY, "lora.safetensors"] = save(tmp_path / "lora.safetensors", lora).read_bytes()
    dit, *_ = toy_preset().parts
    adding = Part("lora", dit.path, evolve(dit.source, file="lora.safetensors"))
    fetch(toy_preset(parts=(dit, adding)), tmp_path / "models", endpoint=stocked.endpoint)
    loaded, _ = load_transformer(tmp_path / "models/toy", None, torch.device("cpu"), torch.float32)
    changed = loaded.state_dict()[f"{name}.weight"] - dit_tensors()[f"{name}.weight"]
    torch.testing.assert_close(changed, torch.full_like(changed, 2.0), atol=0.02, rtol=0)


def test_licence_that_forbids_something_must_be_accepted_first(stocked: ToyHub, tmp_path: Path) -> None:
    dit, *others = toy_preset().parts
    strict = evolve(dit, source=evolve(dit.source, licence="CC-BY-NC-SA-4.0, non-commercial", confirm=True))
    preset = toy_preset(parts=(strict, *others))
    assert licences(preset) == (
        f"{REPOSITORY}: CC-BY-NC-SA-4.0, non-commercial",
        f"{REPOSITORY}: Apache-2.0",
    )
    with pytest.raises(LicenceError, match=r"under CC-BY-NC-SA-4\.0.* run: sfserver fetch toy --accept-license"):
        fetch(preset, tmp_path / "models", endpoint=stocked.endpoint)
    assert stocked.requests == []
    fetch(preset, tmp_path / "models", accept_license=True, endpoint=stocked.endpoint)
    assert problem(tmp_path / "models" / dit.path, "dit") is None


def test_file_that_is_not_what_the_preset_needs_is_refused_after_the_download(stocked: ToyHub, tmp_path: Path) -> None:
    stocked.files[REPOSITORY, "dit.safetensors"] = stocked.files[REPOSITORY, "taew2_1.safetensors"]
    with pytest.raises(WeightsError, match="holds a tae where a dit is wanted"):
        fetch(toy_preset(), tmp_path / "models", endpoint=stocked.endpoint)
    assert not (tmp_path / "models" / "toy" / "dit.safetensors").exists()


def test_hub_is_the_one_that_the_environment_names(hub: ToyHub, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from sfserver.fetch import download, Source;"
        f"print(download(Source({REPOSITORY!r}, {BIG.file!r}, ''), Path(sys.argv[1])).stat().st_size)"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint}
    answer = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert int(answer.stdout) == len(CONTENT)


# Room on the disk -----------------------------------------------------------------------------------------------------


def test_each_download_goes_as_soon_as_its_part_stands(stocked: ToyHub, tmp_path: Path) -> None:
    models, most = tmp_path / "models", [0]
    sizes = sorted(len(content) for (_, name), content in stocked.files.items() if name != BIG.file)

    def look(what: str, done: int, of: int) -> None:
        files = [path for path in (models / DOWNLOADS).rglob("*") if path.is_file()]
        most[0] = max(most[0], sum(path.stat().st_size for path in files))

    fetch(toy_preset(), models, on_progress=look, endpoint=stocked.endpoint)
    assert sizes[-1] <= most[0] <= sizes[-1] + 100, "never more than the largest of them"


def test_a_file_that_two_parts_are_made_of_is_downloaded_once(stocked: ToyHub, tmp_path: Path) -> None:
    dit, vae, *_ = toy_preset().parts
    twice = (dit, evolve(dit, path="again/dit.safetensors"), vae)
    fetch(toy_preset(parts=twice), tmp_path / "models", endpoint=stocked.endpoint)
    assert len(stocked.downloads("dit.safetensors")) == 1
    assert not (tmp_path / "models" / DOWNLOADS).exists()


def test_a_disk_without_room_for_all_of_it_is_noticed_before_the_first_byte(
    stocked: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    fetch(toy_preset(), tmp_path / "models", endpoint=stocked.endpoint, on_plan=told.append)
    assert len(told) == 1
    assert "of disk at its most" in told[0]
    stocked.requests.clear()
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(FetchError, match=r"toy downloads .* has 0\.0 GB free; make room, or set SFSERVER_MODELS_DIR"):
        fetch(toy_preset(), tmp_path / "other", endpoint=stocked.endpoint)
    assert all(request.method == "HEAD" or "/tree/" in request.path for request in stocked.requests)


def test_what_a_fetch_takes_is_counted_side_by_side() -> None:
    a, b, c = (Path(name) for name in "abc")
    alone = room.Item({a: 100}, 0, 50)
    assert room.most_bytes([alone]) == 150
    assert room.most_bytes([alone, room.Item({b: 60}, 0, 30)]) == 150, "the first download has gone by then"
    assert room.most_bytes([room.Item({b: 60}, 0, 30), alone]) == 180, "hence the largest comes first"
    assert room.most_bytes([room.Item({a: 100}, 100, 50)]) == 50, "what is there takes no more"
    shared = [room.Item({a: 100}, 0, 50), room.Item({c: 10}, 0, 10), room.Item({a: 100}, 0, 50)]
    assert room.most_bytes(shared) == 100 + 50 + 20 + 50 - 10


def test_the_large_models_are_counted_as_they_are_published() -> None:
    """Published sizes: T5 11.36 GB in bf16, the transformer 5.68 GB and VACE 7.15 GB or so in float32."""
    sizes = {"text": 11_361_920_418, "dit": 5_676_070_424, "vace": 7_150_000_000, "vae": 507_591_892}
    items = [
        room.Item({Path(role): size}, 0, room.converted_bytes(role, SELF_FORCING_VACE.dit, size))
        for role, size in sizes.items()
    ]
    stays = sum(item.converted for item in items)
    assert stays / 1e9 == pytest.approx(11.36 + 2.84 + 1.47 + 0.25, abs=0.05)
    assert room.most_bytes(items) / 1e9 < 24
