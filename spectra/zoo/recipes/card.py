"""Write a bundled model's card: `python -m spectra.zoo.recipes.card --model mini --steps 8000`.

Scores it (`gate.json`), draws the sample sheet (`samples.png`) and the probe's figure (`bands.png`) into
`docs/images`, and writes `README.md` into the model's folder from those numbers alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from spectra.zoo.recipes import gate

ZOO = Path(__file__).parents[1]
IMAGES = ZOO.parents[1] / "docs" / "images"
ABOUT = {
    "mini": (
        "A text-to-image latent diffusion model in Stable Diffusion's format: `StableDiffusionPipeline`, "
        "v-prediction on a cosine schedule, a UNet (64 and 96 channels) with cross-attention at both resolutions, "
        "a CLIP text model of width 128 with two layers."
    ),
    "mini-flow": (
        "A text-to-image flow-matching model in Stable Diffusion 3's format: `StableDiffusion3Pipeline` without T5 "
        "(call it with `max_sequence_length=1`), a transformer of six joint blocks of width 128 on 2 x 2 patches, "
        "two CLIP text models of width 64 with two layers. Noise levels near one are rare in its training "
        "(logit-normal), which shows in the first step of its figure."
    ),
}
CARD = """# {name}

{about}

64 x 64 pixels, latents 4 x 16 x 16, {megabytes:.1f} MB in half precision. It exists so that everything in this
project can be tried and tested in minutes without a download. It knows one small procedural world and nothing else.

## Data

Pictures of `spectra/zoo/world.py`: one of 6 shapes in one of 8 colours and 2 sizes, on one of 5 backgrounds
(plain, gradient, striped, checkered, dotted) in another colour, with captions such as
"{caption}". 60 000 pictures, drawn by the script; one combination of shape, colour,
texture and background colour in eight was held out of training. The autoencoder (shared by both bundled models) also
saw hatched pictures, the zog and crowds of shapes; the denoisers saw none of these.

## Training

{steps} steps of {batch} pictures ({samples} samples) with AdamW at a rate of 1e-3, falling to zero over the last
{decay} steps, bf16 autocast, averaged weights (decay 0.9995), captions dropped in one of ten; seed 0; on one CPU core.

    python -m spectra.zoo.recipes.vae --out vae
    python -m spectra.zoo.recipes.latents --vae vae --out latents.safetensors
    python -m spectra.zoo.recipes.denoiser --model {name} --latents latents.safetensors --out state \\
        --steps {steps} --decay {decay}
    python -m spectra.zoo.recipes.assemble --model {name} --vae vae --state state/state.pt --out {name}

Equal seeds give equal data, order and noise; the weights agree bit for bit only on equal hardware and versions.

## Scores

{prompts} fixed prompts whose combinations were held out of training, one picture each ({sampling} steps, guidance
{guidance:g}), read by the attribute reader (`spectra/zoo/reader.py`), which was trained on drawings and never on
samples. Share of right readings with its 95 % Wilson interval over prompts; one training run, so the spread between
trainings is not in it.

| attribute | samples | through the autoencoder | drawings (the reader's ceiling) |
| --- | --- | --- | --- |
{rows}

Reproduce: `python -m spectra.zoo.recipes.gate --model {name}`.

![samples](../../../docs/images/{name}-samples.png)

## How it decides

With guidance off, the bands of the predicted picture settle from low to high frequency:

![bands](../../../docs/images/{name}-bands.png)

## Limits

Only the words of its world mean anything to it; two shapes, other objects, counts and positions do not. It is
one training run with one seed. Licence: Apache-2.0, like the code; the data are drawn by the code.
"""


def row(name: str, result: dict[str, Any]) -> str:
    """One attribute's line of the score table."""
    cells = (result[part][name] for part in ("samples", "autoencoder", "drawings"))
    return f"| {name} | " + " | ".join(f"{c['right']:.3f} ({c['low']:.3f} to {c['high']:.3f})" for c in cells) + " |"


def figure(name: str) -> None:
    """Probe 16 of the gate's prompts without guidance and draw the overview."""
    from spectra.plots import overview, save
    from spectra.probe import probe

    captions = [scene.caption for scene, _ in gate.prompts()[:16]]
    with tempfile.TemporaryDirectory() as folder:
        cube = probe(name, captions, [0, 1], 30, Path(folder) / "cube.zarr", guidance_scale=1.0)
        save(overview(cube), IMAGES / f"{name}-bands.png")


def main() -> None:
    """Score, draw, write."""
    from spectra.models import load_pipeline

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(ABOUT), required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--decay", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    sheet = IMAGES / f"{args.model}-samples.png"
    result = gate.judge(load_pipeline(args.model), gate.STEPS, gate.GUIDANCE, sheet)
    (ZOO / args.model / "gate.json").write_text(json.dumps(result, indent=1) + "\n")
    figure(args.model)
    size = sum(file.stat().st_size for file in (ZOO / args.model).rglob("*.safetensors")) / 1e6
    text = CARD.format(
        name=args.model, about=ABOUT[args.model], megabytes=size, caption=gate.prompts()[0][0].caption,
        steps=args.steps, decay=args.decay, batch=args.batch, samples=args.steps * args.batch,
        prompts=result["prompts"], sampling=result["steps"], guidance=result["guidance"],
        rows="\n".join(row(name, result) for name in result["samples"]),
    )  # fmt: skip
    (ZOO / args.model / "README.md").write_text(text)


if __name__ == "__main__":
    main()
