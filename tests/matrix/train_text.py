"""Tiny readers of captions that are saved with a pipeline: real encoders with random weights, tokenizers that spell."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.tiny import text_config, tokenizer

LETTERS = [chr(code) for code in range(33, 127)]


def t5_tokenizer() -> T5Tokenizer:
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("\u2581", -1.0), *((letter, -2.0) for letter in LETTERS)]
    return T5Tokenizer(vocab=words, extra_ids=0)


def gemma_tokenizer() -> GemmaTokenizer:
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *LETTERS]
    return GemmaTokenizer(vocab={word: place for place, word in enumerate(words)}, padding_side="right")


def qwen_tokenizer() -> Qwen2Tokenizer:
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*marks, *sorted(ByteLevel.alphabet())]
    return Qwen2Tokenizer(vocab={word: place for place, word in enumerate(words)}, extra_special_tokens=marks[1:])


def clip(width: int, projected: bool = False) -> dict[str, Any]:
    """A CLIP tokenizer and encoder."""
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return {"tokenizer": tokenizer(), "text_encoder": _lively(kind(text_config(width)))}


def t5(width: int, kind: str = "T5") -> dict[str, Any]:
    """A T5 or UMT5 tokenizer and encoder."""
    words = t5_tokenizer()
    config, model = {"T5": (T5Config, T5EncoderModel), "UMT5": (UMT5Config, UMT5EncoderModel)}[kind]
    made = model(
        config(vocab_size=len(words), d_model=width, d_kv=8, d_ff=2 * width, num_layers=1, num_heads=2)
    )  # fmt: skip
    return {"tokenizer": words, "text_encoder": _lively(made)}


def gemma(width: int) -> dict[str, Any]:
    """A Gemma 2 tokenizer and language model."""
    words = gemma_tokenizer()
    config = Gemma2Config(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=4096,
        pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    return {"tokenizer": words, "text_encoder": _lively(Gemma2Model(config))}


def qwen(width: int) -> dict[str, Any]:
    """A Qwen 2.5 VL tokenizer and language model."""
    words = qwen_tokenizer()
    text = {
        "vocab_size": len(words), "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "bos_token_id": 0, "eos_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 4]},
    }  # fmt: skip
    sight = {
        "depth": 1, "hidden_size": width, "intermediate_size": 2 * width, "num_heads": 2, "out_hidden_size": width,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=text, vision_config=sight)
    return {"tokenizer": words, "text_encoder": _lively(Qwen2_5_VLForConditionalGeneration(config))}


PLAIN_CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
CHAT_OF_PARTS = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }} {% endfor %}{% endfor %}"


def chat(width: int, layers: int, template: str = PLAIN_CHAT, head: bool = True) -> dict[str, Any]:
    """A Qwen 3 language model and a tokenizer with a template of conversations; long texts lose their beginning."""
    words = qwen_tokenizer()
    words.chat_template, words.truncation_side = template, "left"
    config = Qwen3Config(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=2048, pad_token_id=0, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config) if head else Qwen3Model(config)
    return {"tokenizer": words, "text_encoder": _lively(model)}


def _lively(model: nn.Module) -> nn.Module:
    """Embeddings drawn anew with a spread of one, so that captions differ by more than rounding."""
    generator = torch.Generator().manual_seed(2)
    embeddings: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        for parameter in embeddings.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()
