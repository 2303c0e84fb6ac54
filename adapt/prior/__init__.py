"""What a probed cube teaches an adapter: see `adapt.prior.prior`."""

from adapt.prior.prior import Prior
from adapt.prior.start import soft_prototypes

__all__ = ["Prior", "soft_prototypes"]
