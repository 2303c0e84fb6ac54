"""The denoisers that the tests of FeRA use."""

from tests.adapt.fera.conftest import denoiser, transformer, unet

__all__ = ["denoiser", "transformer", "unet"]
