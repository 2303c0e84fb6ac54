"""Options of the commands of `spectra` that have much to say, and those that both programs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ModelName = Annotated[str, typer.Option("--model", help="Bundled name, alias (`spectra models`), folder or hub id.")]
Prompt = Annotated[list[str] | None, typer.Option("--prompt", help="A prompt; repeat it for more.")]
Prompts = Annotated[
    Path | None, typer.Option("--prompts", help="File with one prompt a line; lines that begin with # are comments.")
]
Seeds = Annotated[
    str | None,
    typer.Option("--seeds", help="Seeds for each prompt, such as 0:4 or 1,4,7. Default: 0:8; with --data 0:1."),
]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Sampling steps.")]
GuidanceScale = Annotated[
    float | None,
    typer.Option(
        "--guidance-scale", min=0, help="Guidance scale; at 1, the default, it is off, as band energies want."
    ),
]
Guidance = Annotated[
    str | None,
    typer.Option(
        "--guidance",
        help="How predictions with and without prompt are combined: cfg, cfg-zero-init, cfg-zero-star or "
        "cfg-zero-star-band; options as in 'cfg-zero-star(zero_init=0)'.",
    ),
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="Scheduler of diffusers, such as DDIM; default: the model's own.")
]
Bands = Annotated[
    str | None, typer.Option("--bands", help="Octave bands, such as 6, or scales in latent pixels: 0.8,1.6,3.2.")
]
Signals = Annotated[
    str | None,
    typer.Option(
        "--signals",
        help="Of latent,x0,eps,prediction,cond,uncond,guidance,blocks; by default the first four. "
        "cond, uncond and guidance need --guidance-scale above 1.",
    ),
]
Adapter = Annotated[
    Path | None,
    typer.Option("--adapter", help="Adapter: a run of `adapt train`, a PEFT folder or a LoRA file."),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of pictures: record them under the forward process, no sampling.")
]
SIGNALS, OFF = "latent,x0,eps,prediction", 1.0  # what is recorded by default, and the scale without guidance
CallArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--call", help="NAME=VALUE for the pipeline's call, such as height=512 or negative_prompt=blurry; repeat it."
    ),
]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    typer.Option("--dtype", help="Type that the model's weights are opened in. Default: float32."),
]
Device = Annotated[
    str | None, typer.Option("--device", help="Such as cuda:1 or cpu; default: the accelerator that is there.")
]
ABOUT_FIGURE = "Picture to write; default: beside the cube, and none with --json."
Batch = Annotated[int, typer.Option("--batch", min=1, help="Samples generated at once.")]
Resume = Annotated[
    Literal["allow", "must", "never"],
    typer.Option("--resume", help="Add to a cube that exists: allow it, demand it, or never do it."),
]

CHOICE = "runs by NAME=VALUE: adapter, guidance_scale, guidance_rule, adapter_detail, prompt, seed. Repeat it for more."
Only = Annotated[list[str] | None, typer.Option("--only", help=f"Choose {CHOICE}")]
OnlyA = Annotated[list[str] | None, typer.Option("--only-a", help=f"Of A, choose {CHOICE}")]
OnlyB = Annotated[list[str] | None, typer.Option("--only-b", help=f"Of B, choose {CHOICE}")]
