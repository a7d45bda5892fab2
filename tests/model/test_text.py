"""Prompts: cleaned as in training, encoded on valid tokens alone, and never encoded twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from published import tokenizer_bytes
from torch.utils._python_dispatch import TorchDispatchMode

from sfserver import room
from sfserver.engine import capacity, wan_load
from sfserver.model.config import WAN_1_3B
from sfserver.model.text import (
    TEXT_ROWS,
    PromptCache,
    PromptEncoder,
    PromptTooLong,
    TextConfig,
    TextEncoder,
    clean_prompt,
    embed_tokens,
    load_tokenizer,
    padded,
    umt5_stack,
)
from sfserver.weights.dialects import text_name

TINY = TextConfig(vocab_size=64, dim=16, ffn_dim=32, heads=2, head_dim=8, layers=2)


@pytest.fixture(scope="module")
def stack() -> torch.nn.Module:
    torch.manual_seed(1)
    return umt5_stack(TINY)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  a  cat\n\twalks ", "a cat walks"),
        ("a cafÃ© at night", "a café at night"),  # ftfy
        ("red &amp;amp; blue", "red & blue"),  # entities, escaped twice
        ("“quoted”", '"quoted"'),  # ftfy straightens quotes
        ("   ", ""),
    ],
)
def test_prompt_is_cleaned_as_in_training(raw: str, cleaned: str) -> None:
    assert clean_prompt(raw) == cleaned


def test_valid_tokens_alone_give_what_the_padded_sequence_gives(stack: torch.nn.Module) -> None:
    ids = torch.randint(2, 64, (1, 9))
    mask = torch.cat([torch.ones(1, 9, dtype=torch.long), torch.zeros(1, 23, dtype=torch.long)], dim=1)
    with torch.no_grad():
        long = stack(input_ids=torch.cat([ids, torch.zeros_like(mask[:, 9:])], dim=1), attention_mask=mask)
    torch.testing.assert_close(embed_tokens(stack, ids), long.last_hidden_state[:, :9], atol=1e-5, rtol=0)


def test_rows_behind_the_prompt_are_zeros() -> None:
    rows = torch.ones(5, 16)
    embedding = padded(rows)
    assert embedding.shape == (1, TEXT_ROWS, 16)
    assert torch.equal(embedding[0, :5], rows)
    assert not embedding[0, 5:].any()


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokenizer") / "spiece.model"
    file.write_bytes(tokenizer_bytes())
    return file


def test_prompt_ends_with_the_end_mark(tokenizer_file: Path) -> None:
    tokenize = load_tokenizer(tokenizer_file)
    assert tokenize("") == [1]
    assert tokenize("a cat")[-1] == 1
    assert len(tokenize("a cat")) > 2


def test_prompt_of_more_tokens_than_the_model_reads_is_refused_before_the_encoder_is_loaded(
    stack: torch.nn.Module,
) -> None:
    loads = 0

    def load_stack() -> torch.nn.Module:
        nonlocal loads
        loads += 1
        return stack

    def load() -> TextEncoder:
        return TextEncoder(load_stack, lambda prompt: [3] * len(prompt) + [1])

    encode = PromptEncoder(load, PromptCache(None, "weights"))
    for _ in range(3):
        with pytest.raises(PromptTooLong, match=r"a prompt of 513 tokens: the model reads 512; say it in fewer words"):
            encode("x" * TEXT_ROWS)
    assert loads == 0
    assert encode("x" * (TEXT_ROWS - 1))[0, -1].any()
    assert loads == 1


class Precisions(TorchDispatchMode):
    """Notes the precision in which softmax and means of squares, which are the norms, are computed.

    A fused attention kernel does not show its softmax here; torch keeps that in float32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._opname in ("_softmax", "mean"):
            self.seen.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_a_bfloat16_encoder_keeps_its_norms_in_float32_and_stays_near_the_exact_one() -> None:
    torch.manual_seed(1)
    exact = umt5_stack(TINY)
    ids = torch.randint(2, 64, (1, 9))
    expected = embed_tokens(exact, ids)
    with Precisions() as precisions:
        rounded = embed_tokens(exact.to(torch.bfloat16), ids)
    assert rounded.dtype == torch.bfloat16
    assert precisions.seen == {torch.float32}
    torch.testing.assert_close(rounded.float(), expected, atol=0.1, rtol=0.05)


def test_file_that_is_no_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(b"\x80\x04 not a tokenizer")
    with pytest.raises(ValueError, match=r"spiece\.model: is not a SentencePiece model"):
        load_tokenizer(tmp_path / "spiece.model")


class Counted:
    """Loads an encoder and counts how often it was asked to."""

    def __init__(self, stack: torch.nn.Module, tokenize: Callable[[str], list[int]]) -> None:
        self.loads = 0
        self.encoder = TextEncoder(lambda: stack, tokenize)

    def __call__(self) -> TextEncoder:
        self.loads += 1
        return self.encoder


@pytest.fixture
def load(stack: torch.nn.Module, tokenizer_file: Path) -> Counted:
    return Counted(stack, load_tokenizer(tokenizer_file))


def test_repeated_prompt_needs_no_encoder(load: Counted, tmp_path: Path) -> None:
    encode = PromptEncoder(load, PromptCache(tmp_path, "weights"))
    first = encode("a cat walks")
    assert load.loads == 1
    assert torch.equal(encode("  a cat   walks"), first)
    assert load.loads == 1

    def unloadable() -> TextEncoder:
        raise AssertionError("a prompt that is on disk needs no encoder")

    again = PromptEncoder(unloadable, PromptCache(tmp_path, "weights"))
    assert torch.equal(again("a cat walks"), first)


def test_encoder_is_let_go_unless_it_is_to_be_kept(load: Counted) -> None:
    letting_go = PromptEncoder(load, PromptCache(None, "weights"))
    letting_go("a cat")
    letting_go("a dog")
    assert load.loads == 2
    keeping = PromptEncoder(load, PromptCache(None, "weights"), keep_loaded=True)
    keeping("a cat")
    keeping("a dog")
    assert load.loads == 3


def test_other_weights_or_another_prompt_never_get_a_stored_embedding(tmp_path: Path) -> None:
    PromptCache(tmp_path, "weights").put("a cat", torch.ones(3, 4))
    assert PromptCache(tmp_path, "weights").get("a cat") is not None
    assert PromptCache(tmp_path, "other weights").get("a cat") is None
    assert PromptCache(tmp_path, "weights").get("a dog") is None


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 64])
def test_spoiled_entry_is_made_anew(load: Counted, tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    first = PromptEncoder(load, PromptCache(tmp_path, "weights"))("a cat")
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(spoil(file.read_bytes()))
    assert torch.equal(PromptEncoder(load, PromptCache(tmp_path, "weights"))("a cat"), first)
    assert load.loads == 2
    assert PromptCache(tmp_path, "weights").get("a cat") is not None


def test_entry_under_another_ones_name_does_not_count(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path, "weights")
    cache.put("a cat", torch.ones(3, 4))
    (cat,) = tmp_path.glob("*.safetensors")
    cache.put("a dog", torch.zeros(3, 4))
    (dog,) = set(tmp_path.glob("*.safetensors")) - {cat}
    dog.write_bytes(cat.read_bytes())
    assert PromptCache(tmp_path, "weights").get("a dog") is None


def test_folder_that_cannot_be_written_costs_no_result(load: Counted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    encode = PromptEncoder(load, PromptCache(tmp_path / "file" / "below", "weights"))
    assert encode("a cat").shape == (1, TEXT_ROWS, 16)


def test_cache_stays_within_its_bounds(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path, "weights", memory_entries=2, disk_entries=3)
    for i in range(6):
        cache.put(f"prompt {i}", torch.full((1, 4), float(i)))
    assert len(cache._memory) == 2
    assert len(list(tmp_path.glob("*"))) == 3
    assert cache.get("prompt 5") is not None


def test_agrees_with_transformers_through_our_key_map() -> None:
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(3)
    theirs = UMT5EncoderModel(
        UMT5Config(
            vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
        )
    ).eval()
    ours = umt5_stack(TINY)
    ours.load_state_dict({text_name(name): value for name, value in theirs.state_dict().items()})
    ids = torch.randint(2, 64, (1, 7))
    with torch.no_grad():
        expected = theirs(input_ids=ids).last_hidden_state
    torch.testing.assert_close(embed_tokens(ours, ids), expected, atol=0, rtol=0)


@pytest.mark.parametrize(("card_gb", "kind"), [(8, "cpu"), (12, "cpu"), (16, "cuda"), (24, "cuda"), (80, "cuda")])
def test_prompts_are_read_on_a_gpu_that_holds_the_encoder_beside_the_model(
    card_gb: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = SimpleNamespace(total_memory=card_gb * 1024**3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    kept = capacity.weight_bytes(WAN_1_3B, 2)
    assert wan_load.text_device(torch.device("cuda"), kept, 2 * room.TEXT_PARAMETERS).type == kind
    assert wan_load.text_device(torch.device("mps"), kept, 0).type == "cpu"
