"""What each of diffusers' schedulers means by a step: the weights of signal and noise, and what the network predicts.

    vp    DDIM, DDPM, PNDM, LCM, TCD, UnCLIP, RePaint, CogVideoX   signal^2 = alphas_cumprod[t]
          Wuerstchen, IPNDM                                         the same by a cosine of their own time
          DPM++, UniPC, DEIS, SA                                    sigmas[i] = noise / signal
    ve    Euler, Heun, KDPM2, LMS, DPM SDE                          noise = sigmas[i]
          EDM, CosineDPM, consistency models                        the same, and outputs that are preconditioned
    flow  flow matching, DPM++ and its kin with `use_flow_sigmas`   noise = sigmas[i], signal = 1 - noise
    trig  SCM                                                       signal = cos t, noise = sigma_data sin t

Three things are easily got wrong. A step brings its state to the *next* level, so the finished sample has one of its
own, which is not always 0. Solvers of second order evaluate at levels between steps. The inverse of DDIM is given the
timestep that it goes to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from spectra.errors import UserError
from spectra.schedulers import by_index as indexed
from spectra.schedulers import by_timestep as keyed
from spectra.schedulers import preconditioned as networks
from spectra.signals import Schedule

SCHEDULERS: dict[str, Callable[[Any], Schedule]] = {
    **dict.fromkeys(("DDIMScheduler", "DDIMParallelScheduler", "RePaintScheduler"), keyed.ddim),
    **dict.fromkeys(("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"), keyed.ddim),
    **dict.fromkeys(("DDPMScheduler", "DDPMParallelScheduler"), keyed.ddpm),
    **dict.fromkeys(("LCMScheduler", "UnCLIPScheduler"), keyed.clean_end),
    "TCDScheduler": keyed.tcd,
    "PNDMScheduler": keyed.pndm,
    "DDIMInverseScheduler": keyed.ddim_inverse,
    "DDPMWuerstchenScheduler": keyed.wuerstchen,
    "IPNDMScheduler": indexed.ipndm,
    **dict.fromkeys(
        ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler"), indexed.euler
    ),
    "HeunDiscreteScheduler": indexed.heun,
    "KDPM2DiscreteScheduler": indexed.midpoints(lambda s, sigmas, i: float(s.sigmas_interpol[i])),
    "KDPM2AncestralDiscreteScheduler": indexed.midpoints(lambda s, sigmas, i: float(s.sigmas_interpol[i - 1])),
    "DPMSolverSDEScheduler": indexed.midpoints(lambda s, sigmas, i: math.sqrt(sigmas[i - 1] * sigmas[i])),
    **dict.fromkeys(("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"), indexed.solver),
    **dict.fromkeys(("UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"), indexed.solver),
    "DPMSolverMultistepInverseScheduler": indexed.solver_inverse,
    **dict.fromkeys(("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"), indexed.flow),
    "FlowMatchHeunDiscreteScheduler": indexed.flow_heun,
    "LTXEulerAncestralRFScheduler": indexed.flow_ancestral,
    "MiniMaxH3Scheduler": indexed.flow_upwards,
    "FlowMapEulerDiscreteScheduler": keyed.flow_map,
    **dict.fromkeys(("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"), networks.edm),
    "CosineDPMSolverMultistepScheduler": networks.edm,
    "CMStochasticIterativeScheduler": networks.consistency,
    "SCMScheduler": networks.trigonometric,
}

_TOKENS = "fills in discrete tokens, which have no bands"
_STAGES = "changes the size of its latents from stage to stage"
_SOLE = "is stepped by methods and arguments of its own"
REFUSED: dict[str, str] = {
    **dict.fromkeys(("AmusedScheduler", "VQDiffusionScheduler", "BlockRefinementScheduler"), _TOKENS),
    **dict.fromkeys(("EntropyBoundScheduler", "DiscreteDDIMScheduler"), _TOKENS),
    **dict.fromkeys(("HeliosScheduler", "HeliosDMDScheduler"), _STAGES),
    **dict.fromkeys(("ScoreSdeVeScheduler", "ScoreSdeVpScheduler", "KarrasVeScheduler"), _SOLE),
    "PiflowScheduler": "is given a policy for many substeps instead of a prediction",
    "RFD4ProteinaScheduler": "moves atoms, not fields",
    "ConsistencyDecoderScheduler": "works inside a VAE's decoder",
}


def rule_of(scheduler: Any) -> Callable[[Any], Schedule] | None:
    """The rule for a scheduler, by its class or a base; None if it is unknown. Raises UserError if it is refused."""
    for base in type(scheduler).__mro__:
        if base.__name__ in SCHEDULERS:
            return SCHEDULERS[base.__name__]
        if base.__name__ in REFUSED:
            raise UserError(f"{type(scheduler).__name__} {REFUSED[base.__name__]}, so it cannot be recorded")
    return None
