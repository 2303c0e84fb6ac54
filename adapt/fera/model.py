"""FeRA on a denoiser: inject, read the gates, count, unload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adapt.fera.config import FeraConfig, resolve
from adapt.fera.layer import MERGE_REFUSED, FeraLayer, FeraProjection, GateCell, layer_class
from adapt.fera.matching import matches, settle_targets
from adapt.fera.router import FeraRouter, route
from adapt.fera.view import View, view_of
from spectra.errors import UserError


class FeraModel(BaseTuner):  # type: ignore[misc, unused-ignore]
    """PEFT's tuner for FeRA; `peft.get_peft_model`, diffusers' `add_adapter` and `load_fera` all come here."""

    prefix = "fera_"
    tuner_layer_cls = FeraLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 (PEFT's name and type)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Wrap the targets and then attach the router.

        The order matters: PEFT takes a model that already holds a tuner layer for an adapted one, and would leave the
        whole base trainable.
        """
        try:
            config = resolve(cast(FeraConfig, self.peft_config[adapter_name]), model)
            latent = view_of(model, config.latent_argument, config.grid)
            config.latent_argument = latent.name
            settle_targets(config, model)
        except Exception:
            self.peft_config.pop(adapter_name)
            if not self.peft_config:
                vars(model).pop("_hf_peft_config_loaded", None)  # diffusers sets it before the adapter is there
            raise
        self.peft_config[adapter_name] = config
        router = router_of(model)
        self._cell = GateCell() if router is None else router.cell
        trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        router = _attach(model, self._cell, latent, trainable) if router is None else router
        router.update_layer(adapter_name, config)
        _activate(router, adapter_name, self.active_adapters, config.inference_mode)

    def unload(self) -> nn.Module:
        """The denoiser without FeRA."""
        return unload(self.model)

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: Any) -> PeftConfig:
        return peft_config  # resolved and checked before PEFT looks at it

    @staticmethod
    def _check_target_module_exists(peft_config: PeftConfig, key: str) -> Any:
        return matches(peft_config, key)

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        assert isinstance(peft_config, FeraConfig)
        if isinstance(target, FeraProjection):
            target.update_layer(adapter_name, peft_config)
            return
        kind = layer_class(target)
        assert kind is not None  # settle_targets refused everything else
        layer = kind(target, self._cell)
        layer.update_layer(adapter_name, peft_config)
        self._replace_module(parent, target_name, layer, target)

    def _check_merge_allowed(self) -> None:
        raise UserError(MERGE_REFUSED)


def _attach(model: nn.Module, cell: GateCell, latent: View, trainable: list[str]) -> FeraRouter:
    router = FeraRouter(cell, latent, next(model.parameters()).device)
    router.trainable_before = trainable
    model.fera = router
    router.hook = model.register_forward_pre_hook(route, with_kwargs=True)
    return router


def _activate(router: FeraRouter, name: str, active: list[str], inference_mode: bool) -> None:
    """Follow the layers: `name` learns if it is active, adapters that were there before keep what they had."""
    for attribute in router.adapter_layer_names:
        weights = getattr(router, attribute)
        if name in weights:  # uniform gates have none
            weights[name].requires_grad_(name in active and not inference_mode)
    cast(Any, router)._active_adapter = list(active)


def denoiser_of(pipe_or_model: Any) -> nn.Module:
    """The denoiser of a pipeline, or the model itself without the wrappers of PEFT, torch.compile and DDP."""
    if not isinstance(pipe_or_model, nn.Module):
        from spectra.families import family_of

        return denoiser_of(family_of(pipe_or_model).denoiser(pipe_or_model))
    model: Any = getattr(pipe_or_model, "_orig_mod", pipe_or_model)
    if isinstance(model, DistributedDataParallel):
        return denoiser_of(model.module)
    return cast(nn.Module, model.get_base_model() if hasattr(model, "get_base_model") else model)


def router_of(model: nn.Module) -> FeraRouter | None:
    """The FeRA router of a denoiser, or None where no FeRA adapter is attached."""
    found = getattr(model, "fera", None)
    return found if isinstance(found, FeraRouter) else None


def cell_of(pipe_or_model: Any) -> GateCell:
    """The gate cell of an adapted denoiser; UserError where no FeRA adapter is attached."""
    model = denoiser_of(pipe_or_model)
    router = router_of(model)
    if router is None:
        raise UserError(f"{type(model).__name__} has no FeRA adapter: add one, or load one with adapt.load_fera")
    return router.cell


def gates_of(pipe_or_model: Any, adapter_name: str | None = None) -> Tensor | None:
    """Gates (batch, experts) of the last call, rows of mean one; None after a base call or before any.

    They belong to the graph of that call: detach them before you keep them.  `adapter_name` defaults to the active one.
    """
    gates = cell_of(pipe_or_model).gates
    if not gates:
        return None
    return next(iter(gates.values())) if adapter_name is None else gates.get(adapter_name)


@contextmanager
def base_output(pipe_or_model: Any) -> Iterator[None]:
    """Inside, the denoiser answers without FeRA; no `requires_grad` flips, and the gates from before come back."""
    cell = cell_of(pipe_or_model)
    before, cell.bypassed = cell.bypassed, True
    try:
        with cell.holding(None):
            yield
    finally:
        cell.bypassed = before


def unload(pipe_or_model: Any) -> nn.Module:
    """Remove every PEFT adapter from a denoiser, in place: layers, router, hook, configuration and flags.

    The state dict, the outputs and the trainable parameters are those from before the first FeRA adapter.  A model
    without adapters is left alone.
    """
    model = denoiser_of(pipe_or_model)
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer) and hasattr(module, "base_layer"):
            unwrap(model, name, module)
    router = router_of(model)
    if router is not None:
        router.hook.remove()
        del model.fera
        trainable = set(router.trainable_before)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trainable or parameter.requires_grad)
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        vars(model).pop(attribute, None)
    return model


def unwrap(model: nn.Module, name: str, layer: BaseTunerLayer) -> None:
    """Put the base layer back in the place of a tuner layer."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer.get_base_layer())
