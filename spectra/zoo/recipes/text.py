"""The bundled models' tokenizer and text encoders: one word of the world, one token."""

from __future__ import annotations

import json

import torch
from tokenizers import pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTokenizer

from spectra.zoo import world

LENGTH = 24
"""Tokens per caption, start and end included."""
EXTRA = ["a", "an", "the", "on", "in", "of", "with", "and", "picture", "drawing", "photo", "background", "ink"]
EXTRA += ["hatching", "hatched", "style", "zog", ".", ","]


def words() -> list[str]:
    """Every word that a caption can contain; `zog` names the subject of a task and is never trained."""
    return [*world.COLOURS, *world.SHAPES, *world.SIZES, *world.TEXTURES, *EXTRA]


def tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's format: full byte fallback, every word of the world one token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    blank = CLIPTokenizer(vocab={token: i for i, token in enumerate(alphabet)}, merges=[])
    backend = blank.backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    backend.train_from_iterator([" ".join(words())] * 2, trainer)
    learned = json.loads(backend.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    vocabulary = {token: i for i, token in enumerate(alphabet[:-2])}
    for first, second in merges:
        vocabulary.setdefault(first + second, len(vocabulary))
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    made = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)
    assert len(made) == len(vocabulary), "the tokenizer lost its vocabulary"
    return made


def config(width: int, layers: int = 2) -> CLIPTextConfig:
    """A small CLIP text encoder's configuration."""
    size = len(tokenizer())
    return CLIPTextConfig(
        vocab_size=size, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=max(2, width // 32), max_position_embeddings=LENGTH, projection_dim=width,
        bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1,
    )  # fmt: skip


def token_ids(captions: list[str]) -> Tensor:
    """Caption token ids (captions, LENGTH)."""
    encoded = tokenizer()(captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    return torch.as_tensor(encoded.input_ids)
