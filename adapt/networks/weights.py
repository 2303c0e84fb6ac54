"""Which network is this? A hash of what it computes with, wherever it lies."""

from __future__ import annotations

import hashlib
import json

from torch import nn

from spectra.identity import settings


def weights_hash(network: nn.Module) -> str:
    """64 hex digits of SHA-256 over the configuration and over keys, shapes and values of all weights, as float32."""
    digest = hashlib.sha256(json.dumps(settings(network), sort_keys=True, default=str).encode())
    for key, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        digest.update(f"{key} {tuple(values.shape)}\n".encode())
        digest.update(values.contiguous().numpy())
    return digest.hexdigest()
