"""Prompt -> text embeddings [1, 512, 4096], by the encoder half of UMT5-XXL as Wan 2.1 uses it.

The encoder is large (5.7 G parameters) and used once per prompt, so it is loaded when a prompt is new, and let go; what
it said is kept in memory and on disk. A repeated prompt needs no encoder, and no tokenizer either.

Padding does not reach the valid rows, so only they are computed; the rest are zeros, and must be there: the transformer
attends to all 512 rows (Wan 2.1, `text2video.py` and `modules/t5.py`).
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import ftfy
import torch
from attrs import frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

TEXT_ROWS = 512
"""Rows of every embedding. The published pipeline cuts longer prompts off; we say so instead."""


class PromptTooLong(ValueError):
    """A prompt has more tokens than the model reads; one sentence with the remedy, without the prompt itself."""


@frozen
class TextConfig:
    """Sizes of a UMT5 encoder; the default is umt5-xxl."""

    vocab_size: int = 256384
    dim: int = 4096
    ffn_dim: int = 10240
    heads: int = 64
    head_dim: int = 64
    layers: int = 24
    position_buckets: int = 32
    """Of the relative position bias, which every layer has for itself."""
    max_distance: int = 128


Tokenizer = Callable[[str], list[int]]
"""Cleaned prompt -> token ids, the end mark included."""


class TextEncoder:
    """A tokenizer and the encoder behind it, whose gigabytes are loaded with the first prompt that it can read.

    `load_stack` gives what `umt5_stack` builds, weights loaded, on the device that is to run it.
    """

    def __init__(self, load_stack: Callable[[], nn.Module], tokenize: Tokenizer, most_tokens: int = TEXT_ROWS) -> None:
        self._load_stack = load_stack
        self.tokenize = tokenize
        self.most_tokens = most_tokens

    @cached_property
    def stack(self) -> nn.Module:
        """The encoder itself. What loading raises passes through."""
        return self._load_stack()

    def encode(self, prompt: str) -> Tensor:
        """The embedding of a cleaned prompt [L, D], L its tokens, on the CPU in the weights' dtype.

        Raises PromptTooLong, before anything is loaded; what loading raises passes through.
        """
        ids = self.tokenize(prompt)
        if len(ids) > self.most_tokens:
            raise PromptTooLong(
                f"a prompt of {len(ids)} tokens: the model reads {self.most_tokens}; say it in fewer words"
            )
        return embed_tokens(self.stack, torch.tensor([ids]))[0].cpu()


@torch.no_grad()
def embed_tokens(stack: nn.Module, ids: Tensor) -> Tensor:
    """Token ids [B, L], all of them valid -> [B, L, D] on the encoder's device."""
    device = next(stack.parameters()).device
    return stack(input_ids=ids.to(device), attention_mask=torch.ones_like(ids, device=device)).last_hidden_state


def padded(rows: Tensor) -> Tensor:
    """[L, D] -> [1, TEXT_ROWS, D], zeros behind the valid rows."""
    return nn.functional.pad(rows, (0, 0, 0, TEXT_ROWS - rows.shape[0])).unsqueeze(0)


def clean_prompt(prompt: str) -> str:
    """The text as the encoder was trained to see it: mojibake mended, entities resolved, whitespace single."""
    mended = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", mended.strip()).strip()


def umt5_stack(config: TextConfig) -> nn.Module:
    """The encoder as transformers implements it, weights not loaded."""
    from transformers import UMT5Config, UMT5EncoderModel  # seconds to import, and needed for new prompts alone

    model = UMT5EncoderModel(
        UMT5Config(
            vocab_size=config.vocab_size,
            d_model=config.dim,
            d_kv=config.head_dim,
            d_ff=config.ffn_dim,
            num_layers=config.layers,
            num_heads=config.heads,
            relative_attention_num_buckets=config.position_buckets,
            relative_attention_max_distance=config.max_distance,
            feed_forward_proj="gated-gelu",
            layer_norm_epsilon=1e-6,
        )
    )
    return model.encoder.eval().requires_grad_(False)


def load_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of umt5-xxl's `spiece.model`: its pieces, then the end mark.

    Raises OSError where the file cannot be read and ValueError where it is no tokenizer.
    """
    from sentencepiece import SentencePieceProcessor

    try:
        pieces = SentencePieceProcessor(model_proto=file.read_bytes())
    except RuntimeError:
        raise ValueError(f"{file}: is not a SentencePiece model; download it again") from None

    def tokenize(prompt: str) -> list[int]:
        return [*pieces.encode(prompt), pieces.eos_id()]

    return tokenize


class PromptEncoder:
    """Prompt -> embedding through the cache. Loads the encoder for a new prompt and drops it unless told to keep it."""

    def __init__(self, load: Callable[[], TextEncoder], cache: PromptCache, keep_loaded: bool = False) -> None:
        self._load = load
        self._cache = cache
        self._keep_loaded = keep_loaded
        self._encoder: TextEncoder | None = None

    def __call__(self, prompt: str) -> Tensor:
        """[1, TEXT_ROWS, D] on the CPU, in the encoder's dtype.

        Raises PromptTooLong; what loading raises passes through.
        """
        prompt = clean_prompt(prompt)
        rows = self._cache.get(prompt)
        if rows is None:
            encoder = self._encoder or self._load()
            rows = encoder.encode(prompt)
            self._cache.put(prompt, rows)
            self._encoder = encoder if self._keep_loaded else None
        return padded(rows)


class PromptCache:
    """Embeddings by prompt and weights: the latest in memory, more of them on disk.

    `weights_identity` names the encoder's weights, e.g. their SHA-256: other weights never see each other's entries.
    The folder may be deleted or spoiled at any time: what cannot be read is computed again, what cannot be written is
    not kept.
    """

    def __init__(
        self, folder: Path | None, weights_identity: str, memory_entries: int = 32, disk_entries: int = 512
    ) -> None:
        self._folder = folder
        self._identity = weights_identity
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._memory_entries = memory_entries
        self._disk_entries = disk_entries

    def get(self, prompt: str) -> Tensor | None:
        """The valid rows [L, D] of a cleaned prompt, or None where it is new."""
        key = self._key(prompt)
        rows = self._memory.get(key)
        if rows is None:
            rows = self._read(key)
        if rows is not None:
            self._remember(key, rows)
        return rows

    def put(self, prompt: str, rows: Tensor) -> None:
        key = self._key(prompt)
        self._remember(key, rows)
        self._write(key, rows)

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(f"{self._identity}\0{prompt}".encode()).hexdigest()

    def _remember(self, key: str, rows: Tensor) -> None:
        self._memory[key] = rows
        self._memory.move_to_end(key)
        while len(self._memory) > self._memory_entries:
            self._memory.popitem(last=False)

    def _read(self, key: str) -> Tensor | None:
        if self._folder is None:
            return None
        try:
            with safe_open(self._folder / f"{key}.safetensors", framework="pt") as file:
                # The prompt itself is not stored, its key is: a file that was renamed does not count.
                return file.get_tensor("rows") if (file.metadata() or {}).get("key") == key else None
        except (OSError, SafetensorError):
            return None

    def _write(self, key: str, rows: Tensor) -> None:
        if self._folder is None:
            return
        temporary = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._folder, suffix=".part")
            os.close(handle)
            save_file({"rows": rows.contiguous()}, temporary, metadata={"key": key})
            os.replace(temporary, self._folder / f"{key}.safetensors")
            self._drop_oldest()
        except (OSError, SafetensorError):  # a full or read-only disk costs time on the next run, not this one's result
            if temporary:
                Path(temporary).unlink(missing_ok=True)

    def _drop_oldest(self) -> None:
        assert self._folder is not None
        files = sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) - self._disk_entries)]:
            path.unlink(missing_ok=True)
