"""Networks of transformers, from a folder or the hub: safetensors only, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adapt.networks.network import Pictures
from spectra.errors import UserError
from spectra.models import HUB_ID, hub_trouble, one_line, quiet_libraries

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")


def place(kind: str, given: str) -> str:
    """A folder, or else the id of a hub's page. UserError where it can be neither."""
    folder = Path(given).expanduser()
    if folder.is_dir():
        return str(folder)
    if folder.exists():
        raise UserError(f"{kind}={given} is a file; give the folder that holds config.json and model.safetensors")
    if not HUB_ID.fullmatch(given) or given.startswith("."):
        raise UserError(
            f"there is no folder {given!r} for the network {kind!r}, and it is no hub id (owner/name) either"
        )
    return given


def settings_of(kind: str, where: str, wanted: Mapping[str, str]) -> Any:
    """The configuration, of a model type in `wanted` (type -> words). Asks the hub first for this one small file."""
    from transformers import AutoConfig

    folder = Path(where)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"{where} has no config.json, so it is not a model of transformers; {kind}= needs such a folder"
        )
    config = _told(where, "configuration", lambda: AutoConfig.from_pretrained(where, trust_remote_code=False))
    if config.model_type not in wanted:
        raise UserError(f"{where} is a model of type {config.model_type!r}; {kind}= needs one of {', '.join(wanted)}")
    return config


def load_weights(owner: type[Any], where: str, device: str | torch.device, **kwargs: Any) -> nn.Module:
    """The network in float32, frozen. UserError where weights are missing, torn or pickled only."""
    import torch

    folder = Path(where)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise UserError(f"{where} has no safetensors weights, and pickle is never loaded; save it with safetensors")

    def load() -> nn.Module:
        network: nn.Module = owner.from_pretrained(where, use_safetensors=True, dtype=torch.float32, **kwargs)
        return network

    return _told(where, "weights", load).to(device).eval().requires_grad_(False)


def load_processor(where: str) -> Any:
    """The image processor, in the version that resizes with Pillow, whether there is torchvision or not."""
    from transformers import AutoImageProcessor

    load = partial(AutoImageProcessor.from_pretrained, where, backend="pil", trust_remote_code=False)
    return _told(where, "image processor (preprocessor_config.json)", load)


def seen_side(processor: Any) -> int:
    """The side in pixels of what the network sees of a square picture."""
    import numpy as np

    return int(to_input(processor, np.zeros((1, 64, 64, 3), np.uint8)).shape[-1])


def to_input(processor: Any, images: Pictures) -> Tensor:
    """Pictures (n, h, w, 3) uint8 -> what the network takes (n, 3, side, side), float32."""
    found = processor(images=list(images), return_tensors="pt", input_data_format="channels_last")
    pixels: Tensor = found["pixel_values"]
    return pixels


def load_tokenizer(where: str, words: int) -> Any:
    """The tokenizer of a text network that knows `words` tokens.

    Where its files are missing transformers makes an empty one, so the sizes are compared; up to a tenth of the
    network's tokens may be padding.
    """
    from transformers import AutoTokenizer

    tokenizer = _told(where, "tokenizer", lambda: AutoTokenizer.from_pretrained(where, trust_remote_code=False))
    if not 0.9 * words <= len(tokenizer) <= words:
        raise UserError(
            f"the tokenizer in {where} has {len(tokenizer)} words and the network's text side {words}; "
            "copy or download tokenizer.json (or vocab.json and merges.txt) again"
        )
    return tokenizer


def source_of(where: str) -> str:
    """Where an opened network came from: a folder, or a hub id with the commit that lies in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    if Path(where).is_dir():
        return where
    cached = try_to_load_from_cache(where, "config.json")
    return f"{where}@{Path(cached).parent.name}" if isinstance(cached, str) else where


def _told(where: str, what: str, load: Callable[[], T]) -> T:
    """What `load` gives; its failure as one sentence."""
    try:
        with quiet_libraries() as torn:
            value = load()
    except Exception as error:
        if Path(where).is_dir():
            raise UserError(f"the {what} in {where} cannot be opened: {one_line(error)}") from error
        raise UserError(
            f"the {what} of {where!r} cannot be had from the Hugging Face hub: {hub_trouble(error)}; "
            "download it where there is a connection and give its folder"
        ) from error
    if torn:
        raise UserError(f"{where} is torn: some {what} are missing; copy or download it again")
    return value
