"""The model card of an adapter: what it is, how it was trained and measured, and code that loads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectra.errors import UserError

CARD_FILE = "README.md"

TITLES = {
    "fera": "FeRA (low-rank experts whose gates follow the latent's band energies)",
    "lora": "LoRA", "dora": "DoRA", "adalora": "AdaLoRA", "loha": "LoHa", "lokr": "LoKr", "oft": "OFT", "ia3": "IA3",
    "full": "all weights",
}  # fmt: skip
_RANKED = ("fera", "lora", "dora", "adalora", "loha", "lokr")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")


def write_card(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write `README.md` into an adapter's folder.

    Args:
        record: what `run.json` says (`adapt.record.describe`), as far as it is known; `method` is needed.  `coverage`
            (words), `left_out` (words) and `validation` (`before`, `after`: mean errors, `cells`: how many numbers
            each is a mean of) are shown where they are given; `export` is what `export.json` says.

    Raises:
        UserError: the folder cannot be written.
    """
    path = folder / CARD_FILE
    try:
        path.write_text(card(record), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def card(record: Mapping[str, Any]) -> str:
    """The text of a model card.  Names from outside are shown as plain text; captions are never shown."""
    parts = [
        _front_matter(record), f"# {plain(record.get('name', 'adapter'))}", _what(record), *_loading(record),
        _table(_facts(record)), *_errors(record), _licence(record),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def plain(text: object) -> str:
    """One line of untrusted text that Markdown and HTML show as it is."""
    line = " ".join(str(text).split())
    line = "".join(letter for letter in line if letter.isprintable())
    return _SPECIAL.sub(r"\\\1", line)


def hub_id(model: str) -> str | None:
    """The id on the Hugging Face hub of a model's name; None for bundled models and folders."""
    from spectra.models import HUB_ID, MODELS

    if model in MODELS:
        known = MODELS[model]
        return None if known.bundled or known.analytic else known.source
    return model if HUB_ID.fullmatch(model) and not Path(model).exists() else None


def shown(model: str) -> str:
    """How a card names a model: a folder by its last part, because cards are published and paths are private."""
    return model if hub_id(model) is not None or "/" not in model.replace("\\", "/") else Path(model).name


def _front_matter(record: Mapping[str, Any]) -> str:
    """What the hub reads: YAML, whose strings are written as JSON, which it contains."""
    model = hub_id(str(record.get("model", "")))
    kind = _format(record)
    library = "diffusers" if kind in ("static-lora", "scheduled-loras", "kohya") else "peft"
    tags = ["diffusion", str(record["method"]), *(["lora"] if library == "diffusers" else []), "adapt"]
    lines = [f"library_name: {library}", "tags:", *(f"- {json.dumps(tag)}" for tag in dict.fromkeys(tags))]
    if model is not None:
        relation = "finetune" if record["method"] == "full" else "adapter"
        lines = [f"base_model: {json.dumps(model)}", f"base_model_relation: {relation}", *lines]
    return "\n".join(["---", *lines, "---"])


def _what(record: Mapping[str, Any]) -> str:
    title = TITLES.get(str(record["method"]), plain(record["method"]))
    model = plain(shown(str(record["model"]))) if record.get("model") else "a model that was not recorded"
    start = f"An adapter of kind {title} for {model}."
    if record["method"] == "full":
        start = f"All weights of the denoiser of {model}, trained further."
    form = _format(record)
    if form is None:
        return start
    return f"{start} This folder is an export of it as `{form}`: {plain(record['export']['how'])}."


def _loading(record: Mapping[str, Any]) -> list[str]:
    parts = ["## Load it", "Run this where the files are.", "```python\n" + loading_code(record) + "\n```"]
    return [*parts, _SCHEDULE] if _format(record) == "scheduled-loras" else parts


_SCHEDULE = (
    "`gates.json` says everything that is played: the files of `experts` get the weights in `gates`, one row for each "
    "noise level of `timestep`, `noise_level` and `log_snr`, and those of `shared` the weight 1. Any callback at the "
    "end of a step that calls `pipe.set_adapters(names, weights)` so for the step that comes does the same."
)


def loading_code(record: Mapping[str, Any]) -> str:
    """Code that loads the adapter from the working directory and draws a picture."""
    model, config = str(record.get("model") or "MODEL"), record.get("config", {})
    hub = hub_id(model)
    said = "" if shown(model) == model else "  # the folder of the base model"
    opened = ["from spectra.models import load_pipeline", "", f"pipe = load_pipeline({_quoted(shown(model))}){said}"]
    if hub is not None:
        opened = [
            "from diffusers import DiffusionPipeline",
            "",
            f"pipe = DiffusionPipeline.from_pretrained({_quoted(hub)})",
        ]
    imports, lines, more = _attach(record)
    steps, scale = int(config.get("sample_steps", 20)), float(config.get("guidance", 3.0))
    draw = f'picture = pipe("a caption", num_inference_steps={steps}, guidance_scale={scale}{more})[0][0]'
    return "\n".join([*imports, *opened, *lines, draw])


def _attach(record: Mapping[str, Any]) -> tuple[list[str], list[str], str]:
    """Imports, lines and a further argument of the call, by form and method."""
    form, method = _format(record), str(record["method"])
    if form == "scheduled-loras":
        line = 'player = ScheduledLoras.load(pipe, ".")'
        return ["from adapt.export import ScheduledLoras"], [line], ", callback_on_step_end=player"
    if form in ("static-lora", "kohya"):
        name = record["export"].get("file", "pytorch_lora_weights.safetensors")
        return [], [f'pipe.load_lora_weights(".", weight_name={_quoted(name)})'], ""
    if method == "fera" and not record.get("config", {}).get("text_encoder"):
        return ["import adapt"], ['adapt.load_fera(pipe, ".")'], ""
    if method in ("full", "fera") or record.get("config", {}).get("text_encoder"):
        imports = ["from pathlib import Path", "from adapt.methods import load_adapters"]
        return imports, ['load_adapters(pipe, Path("."))'], ""
    line = 'PeftModel.from_pretrained(getattr(pipe, "unet", None) or pipe.transformer, ".")  # changes it in place'
    return ["from peft import PeftModel"], [line], ""


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    config = record.get("config", {})
    found: dict[str, str] = {"method": TITLES.get(str(record["method"]), plain(record["method"]))}
    if record["method"] in _RANKED and "rank" in config:
        usual = 1 if config.get("fera_mode") == "published" else config["rank"]
        alpha = config.get("alpha") or usual
        found["rank, alpha, scale of the update"] = f"{config['rank']}, {alpha:g}, {alpha / config['rank']:g}"
    if record["method"] == "fera" and "experts" in config:
        found["experts"] = f"{config['experts']} of kind {plain(config.get('expert', 'lora'))}"
        router, mode = config.get("router", "energy"), config.get("fera_mode", "exact")
        found["gates follow"] = _FOLLOWED.get(str(router), plain(router))
        found["mode"] = "published: the semantics of the paper's code" if mode == "published" else plain(mode)
    if config.get("targets") and record["method"] != "full":
        found["layers"] = ", ".join(plain(target) for target in config["targets"])
    found |= {words: plain(record[name]) for name, words in _PLAIN_FACTS.items() if record.get(name) is not None}
    if config.get("lr"):
        found["peak learning rate"] = f"{config['lr']:g}"
    return found


_FOLLOWED = {
    "energy": "band energies", "energy+snr": "band energies, also relative to the noise",
    "energy+clock": "band energies and the noise level", "clock": "the noise level", "uniform": "nothing: all are even",
}  # fmt: skip

_PLAIN_FACTS = {
    "coverage": "coverage", "left_out": "left out", "trainable_parameters": "trained parameters",
    "training_pictures": "training pictures", "steps": "steps", "objective": "objective", "seed": "seed",
    "model_hash": "hash of the base model",
}  # fmt: skip


def _table(facts: Mapping[str, str]) -> str:
    rows = [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(["## How it was made", "", "| | |", "| --- | --- |", *rows])


def _errors(record: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    validation = record.get("validation")
    if validation:
        before, after, cells = (validation[name] for name in ("before", "after", "cells"))
        found += ["## Validation", (
            f"Mean squared error of the prediction on held-out pictures: {before:.4g} before training (the base), "
            f"{after:.4g} after it; each is a mean of {int(cells)} numbers, on the same noise and noise levels."
        )]  # fmt: skip
    export = record.get("export", {})
    if export.get("error"):
        rows = [
            f"| {row['noise_level']:.3g} | {row['relative']:.3g} | {row['of_effect']:.3g} |" for row in export["error"]
        ]
        head = ["| weight of the noise | of the prediction | of the adapter's effect |", "| --- | --- | --- |"]
        found += ["## How near the export is", (
            "Norm of the difference between predictions with these files and with the adapter itself, relative to the "
            f"prediction and to what the adapter changes in it, on latents of {export['samples']} generated samples."
        ), "\n".join([*head, *rows])]  # fmt: skip
    if "relative_to_fera" in export:
        found += ["## How near the export is", (
            f"Final latents differ from those of FeRA by {export['relative_to_fera']:.3g} of their norm, and by "
            f"{export['relative_to_fera_with_these_gates']:.3g} from FeRA whose gates are held to this schedule."
        )]  # fmt: skip
    return found


def _licence(record: Mapping[str, Any]) -> str:
    from spectra.models import MODELS

    known = MODELS.get(str(record.get("model")))
    said = f" It was listed as {known.licence} when this was written." if known and "see" not in known.licence else ""
    return (
        "## Licence\n\nThe adapter is of use with its base model only, whose licence limits what may be done with "
        f"both: see its page.{said}"
    )


def _format(record: Mapping[str, Any]) -> str | None:
    export = record.get("export")
    return str(export["format"]) if export else None


def _quoted(text: object) -> str:
    """A Python string in one line, whatever it holds; JSON would write letters beyond U+FFFF as two."""
    return json.dumps(str(text)) if str(text).isascii() else ascii(str(text))
