"""Feature networks: pictures and captions -> vectors in which distances mean something.

    open_networks(["auto"], model="mini", size=(64, 64))      # the network of the bundled world
    open_networks(["clip=openai/clip-vit-base-patch32", "dino", "inception"])

Every network says what it is (`to_dict`): where from, a hash of its weights, how pictures are resized and quantised.
"""

from __future__ import annotations

from adapt.networks.network import Network
from adapt.networks.opening import open_networks

__all__ = ["Network", "open_networks"]
