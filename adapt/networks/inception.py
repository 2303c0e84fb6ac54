"""Inception v3 as the Fréchet inception distance uses it, by torchmetrics and torch-fidelity."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from adapt.networks.network import Features, Network, Pictures
from adapt.networks.weights import weights_hash
from spectra.errors import UserError
from spectra.models import one_line

DIMS = 2048
SIDE = 299
RESIZE = f"torch bilinear, antialiased, to {SIDE} x {SIDE} without crop, (x - 128) / 128"


def open_inception(device: str | torch.device) -> Network:
    """The 2048 features of the last pooling, with torchmetrics' antialiased resize."""
    extractor = _extractor().to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def see(images: Pictures) -> Features:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(device)
        found: Features = extractor(pixels).float().cpu().numpy()
        return found

    return Network(
        name="inception",
        what="Inception v3 of the Fréchet inception distance, last pooling",
        source="torch-fidelity inception-v3-compat by torchmetrics",
        sha256=weights_hash(extractor),
        size=SIDE,
        resize=RESIZE,
        quantisation="uint8 in; the resized picture stays float",
        dims=DIMS,
        reads_text=False,
        see=see,
    )


def _extractor() -> Any:
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        return NoTrainInceptionV3(name="inception-v3-compat", features_list=[str(DIMS)], antialias=True)
    except ModuleNotFoundError as error:
        raise UserError(
            'the network "inception" needs torchmetrics and torch-fidelity; '
            "install them with `pip install torchmetrics torch-fidelity`"
        ) from error
    except Exception as error:
        raise UserError(f'the weights of the network "inception" cannot be had: {one_line(error)}') from error
