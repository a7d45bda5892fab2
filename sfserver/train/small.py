"""The small world's model: the sizes of its networks, how they begin, and what words are to it.

The classes are those of the large models. Only the sizes are others, and the text encoder was never trained: a frozen
UMT5 of random weights tells a closed vocabulary apart well enough.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import sentencepiece
import torch
from attrs import frozen
from torch import Generator, Tensor, nn

from ..engine.presets import SMALL_WORLD
from ..model.config import DitConfig
from ..model.dit import Dit
from ..model.text import TextConfig, clean_prompt, embed_tokens, umt5_stack
from .world import every_caption

SMALL_DIT = SMALL_WORLD.dit
SMALL_TEXT = TextConfig(vocab_size=288, dim=SMALL_DIT.text_dim, ffn_dim=128, heads=4, head_dim=16, layers=2)
TEXT_SEED = 1


@frozen(eq=False)
class Words:
    """Sentences as the transformer is told them."""

    spiece: bytes
    """The tokenizer's file."""
    stack: nn.Module
    """The text encoder, bfloat16."""

    def embed(self, sentences: Sequence[str]) -> list[Tensor]:
        """[T, text_dim] float32 of each, T its tokens with the end mark: what `text.TextEncoder` says of it.

        Those of the same length go through together.
        """
        pieces = sentencepiece.SentencePieceProcessor(model_proto=self.spiece)
        tokens = [[*pieces.encode(clean_prompt(sentence)), pieces.eos_id()] for sentence in sentences]
        embedded: dict[int, Tensor] = {}
        for length in {len(ids) for ids in tokens}:
            rows = [row for row, ids in enumerate(tokens) if len(ids) == length]
            told = embed_tokens(self.stack, torch.tensor([tokens[row] for row in rows])).float()
            embedded.update(zip(rows, told, strict=True))
        return [embedded[row] for row in range(len(sentences))]

    def table(self, sentences: Sequence[str]) -> Tensor:
        """Embeddings [S, text_len, text_dim], zeros behind the tokens of each."""
        return torch.stack(
            [nn.functional.pad(rows, (0, 0, 0, SMALL_DIT.text_len - len(rows))) for rows in self.embed(sentences)]
        )


def new_words() -> Words:
    """The tokenizer of all that the world can say, and an encoder of random weights, the same each time."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(every_caption()),
        model_writer=model,
        model_type="bpe",
        vocab_size=SMALL_TEXT.vocab_size,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(TEXT_SEED)
        stack = umt5_stack(SMALL_TEXT)
    return Words(model.getvalue(), stack.to(torch.bfloat16))


def new_dit(config: DitConfig, random: Generator) -> Dit:
    """A transformer that can learn: tokens begin as the patches themselves, and the answer as a projection of them."""
    dit = Dit(config)
    for layer in dit.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=random)
            nn.init.zeros_(layer.bias)
    for block in dit.blocks:
        nn.init.normal_(block.modulation, std=config.dim**-0.5, generator=random)
        for last in (block.self_attn.o, block.cross_attn.o, block.ffn[2]):
            assert isinstance(last, nn.Linear)
            last.weight.data *= 0.5
    nn.init.normal_(dit.head.modulation, std=config.dim**-0.5, generator=random)
    for layer in (*dit.time_embedding, *dit.time_projection):
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02, generator=random)
    _pass_patches_through(dit, random)
    return dit.train().requires_grad_(True)


def _pass_patches_through(dit: Dit, random: Generator) -> None:
    """Embedding and head as an orthonormal basis and its transpose."""
    dim, channels = dit.patch_embedding.weight.shape[:2]
    basis, _ = torch.linalg.qr(torch.randn(dim, channels * 4, generator=random))
    dit.patch_embedding.weight.data = basis.reshape(dim, channels, 1, 2, 2).clone()
    patch_last = basis.reshape(dim, channels, 2, 2).permute(2, 3, 1, 0).reshape(-1, dim)  # rows p q C, as the head's
    dit.head.head.weight.data = patch_last * math.sqrt(channels * 4 / dim)
