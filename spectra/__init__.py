"""Watch diffusion pipelines generate: band energies of their latents, at every step, in a labelled cube.

The names below are imported when they are first used, so that `import spectra` costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectra.bands import FilterBank, coherence, radial_spectrum
    from spectra.cube import open_cube, validate
    from spectra.errors import UserError
    from spectra.families import Family, family_of
    from spectra.forward import probe_data
    from spectra.models import call_defaults, load_pipeline, model_hash
    from spectra.probe import probe
    from spectra.record import record

_HOMES = {
    "FilterBank": "bands",
    "coherence": "bands",
    "radial_spectrum": "bands",
    "open_cube": "cube",
    "validate": "cube",
    "UserError": "errors",
    "Family": "families",
    "family_of": "families",
    "call_defaults": "models",
    "load_pipeline": "models",
    "model_hash": "models",
    "probe": "probe",
    "probe_data": "forward",
    "record": "record",
}
__version__ = "0.1.0"
__all__ = [
    "Family", "FilterBank", "UserError", "call_defaults", "coherence", "family_of", "load_pipeline", "model_hash",
    "open_cube", "probe", "probe_data", "radial_spectrum", "record", "validate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The public object `name`, from the module where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'spectra' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"spectra.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What can be imported from here."""
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Importing the module `spectra.record` binds it here, over the function of that name: keep the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
