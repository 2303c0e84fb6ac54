"""Which noise belongs to which picture of a batch: by chance, or by optimal transport."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def coupled(x0: Tensor, noise: Tensor) -> Tensor:
    """The same noises (batch, ...) in the order that makes the sum of ||x0_i - noise_i||^2 smallest.

    Straighter paths for a flow (Pooladian et al., 2304.14772; Tong et al., 2302.00482), within the batch of a process.
    The noise of a batch as a whole is unchanged, but given a picture it is no longer white: with few pictures to a
    caption, a sampler that starts from white noise starts elsewhere than the network was trained for.
    """
    cost = torch.cdist(x0.flatten(1).double(), noise.flatten(1).double()).square()
    _, order = linear_sum_assignment(cost.cpu().numpy())
    return noise[torch.as_tensor(order, device=noise.device)]
