"""FeRA: a mixture of low-rank experts whose gates follow the band energies of the latent, as a PEFT tuner.

Importing this package registers the method with PEFT under the string "FERA".  PEFT's own `register_peft_method` takes
members of its closed enum only, so the entries go straight into its tables.
"""

from __future__ import annotations

from typing import Any, cast

import peft
from packaging.version import Version
from peft import mapping

from adapt.fera.config import PEFT_TYPE, FeraConfig
from adapt.fera.coverage import Coverage, coverage
from adapt.fera.files import load_fera, save_fera
from adapt.fera.layer import FeraConv2d, FeraLinear, GateCell, checkpointing_function
from adapt.fera.loss import fecl
from adapt.fera.model import FeraModel, base_output, cell_of, gates_of, unload
from adapt.fera.router import FeraRouter, set_temperature

__all__ = [
    "Coverage",
    "FeraConfig",
    "FeraConv2d",
    "FeraLinear",
    "FeraModel",
    "FeraRouter",
    "GateCell",
    "base_output",
    "cell_of",
    "checkpointing_function",
    "coverage",
    "fecl",
    "gates_of",
    "load_fera",
    "register",
    "save_fera",
    "set_temperature",
    "unload",
]

_OLDEST_PEFT = "0.21"  # before it, PEFT injects a method with a string name but refuses to save it


def register() -> None:
    """Enter FeRA into PEFT's tables; calling it again changes nothing.

    Raises ImportError where PEFT is too old to save a method that is not in its enum.
    """
    if Version(peft.__version__) < Version(_OLDEST_PEFT):
        raise ImportError(f"FeRA needs peft>={_OLDEST_PEFT}, found {peft.__version__}: run `pip install -U peft`")
    name = cast(Any, PEFT_TYPE)
    mapping.PEFT_TYPE_TO_CONFIG_MAPPING[name] = FeraConfig
    mapping.PEFT_TYPE_TO_TUNER_MAPPING[name] = FeraModel
    mapping.PEFT_TYPE_TO_PREFIX_MAPPING[name] = FeraModel.prefix


register()
