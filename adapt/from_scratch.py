"""Training a small model from nothing: a pipeline without knowledge to begin with, and a whole one at the end.

python -m adapt.from_scratch blank --model mini --out blank      # random weights, the autoencoder kept
adapt train spectra/zoo/recipes/mini.toml                        # method = "full", text_encoder = true
python -m adapt.from_scratch whole --run runs/mini --out my-mini # an ordinary pipeline folder
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from spectra.errors import UserError


def blank(model: str, out: Path, seed: int = 0) -> Path:
    """Write a pipeline folder like `model` in which denoiser and CLIP text encoders have random weights.

    Autoencoder, tokenizers and scheduler are the model's own.  Equal seeds give equal weights.

    Raises:
        UserError: `out` exists, or the model cannot be opened.
    """
    from adapt.methods.text_encoders import clip_encoders
    from spectra.families import family_of
    from spectra.models import load_pipeline

    _check_free(out)
    pipe: Any = load_pipeline(model)
    denoiser: Any = family_of(pipe).denoiser(pipe)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        denoiser.load_state_dict(type(denoiser).from_config(denoiser.config).state_dict())
        for encoder in clip_encoders(pipe).values():
            made: Any = type(encoder)
            encoder.load_state_dict(made(encoder.config).state_dict())
    pipe.save_pretrained(out)
    return out


def whole(run: Path, out: Path) -> Path:
    """Write the pipeline folder of a finished run that trained every weight.

    Raises:
        UserError: `out` exists, or the run trained an adapter.
    """
    from adapt.methods import kind_of, load_adapters
    from adapt.sample import find_adapter
    from spectra.models import load_pipeline

    _check_free(out)
    adapter, record = find_adapter(run)
    if record is None or kind_of(adapter) != "full":
        raise UserError(f"{run} is no run with method = 'full'; its adapter is exported with adapt export")
    pipe: Any = load_pipeline(record["config"]["model"])
    load_adapters(pipe, adapter)
    pipe.save_pretrained(out)
    return out


def _check_free(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out} exists; choose another folder or remove it")


def main() -> None:
    """Make a blank pipeline, or a whole one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="what", required=True)
    first, last = parts.add_parser("blank"), parts.add_parser("whole")
    first.add_argument("--model", required=True)
    first.add_argument("--seed", type=int, default=0)
    last.add_argument("--run", type=Path, required=True)
    for part in (first, last):
        part.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        written = blank(args.model, args.out, args.seed) if args.what == "blank" else whole(args.run, args.out)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    print(written)


if __name__ == "__main__":
    main()
