"""Every kind of adapter is told by its content, put on, and taken off without a trace."""

from __future__ import annotations

import hashlib
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapt.evaluation.adapters import find
from adapt.evaluation.attaching import attached, check_fit
from adapt.generating import generate
from adapt.methods import load_adapters
from spectra.errors import UserError
from spectra.identity import networks
from spectra.models import load_pipeline
from tests.adapt.evaluation.kinds import (
    KINDS,
    PROMPTS,
    SEEDS,
    by_hand,
    exported,
    flow_lora,
    in_parts,
    merged,
    run,
    strong_lora,
)
from tests.adapt.small import model
from tests.tiny import tiny_sd, tiny_sd3_folder


@cache
def pipeline() -> Any:
    return load_pipeline(model("sd"))


def drawn(pipe: Any, batch: int = 8) -> Tensor:
    return generate(pipe, PROMPTS, SEEDS, steps=2, guidance=3.0, batch=batch)


def bits(pipe: Any) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": value.clone()
        for part, network in networks(pipe).items()
        for name, value in network.state_dict().items()
    }


SLOW = pytest.mark.slow
QUICK = (
    "run-lora",
    "fera",
    "full",
    "text",
    "peft-other",
    "diffusers-text",
    "kohya",
    "scheduled",
    "merged",
    "denoiser-file",
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[SLOW] * (name not in QUICK)) for name in KINDS])
def test_every_kind_draws_otherwise_and_leaves_the_base_as_it_was(name: str) -> None:
    kind, path = KINDS[name][0], KINDS[name][1]()
    found, pipe = find(path), pipeline()
    before, weights = drawn(pipe), bits(pipe)
    with attached(pipe, found):
        adapted = drawn(pipe)
    assert found.kind == kind
    assert not torch.equal(adapted, before)
    after = bits(pipe)
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[key], value) for key, value in weights.items())
    assert torch.equal(drawn(pipe), before)


@pytest.mark.parametrize(
    "name", ["fera", "text", *(pytest.param(one, marks=SLOW) for one in ("adapter-of-run", "full"))]
)
def test_our_own_kinds_draw_what_our_own_loader_makes_of_them(name: str) -> None:
    path, pipe = KINDS[name][1](), load_pipeline(model("sd"))
    load_adapters(pipe, path)
    with attached(pipeline(), find(path)):
        assert torch.equal(drawn(pipeline()), drawn(pipe))


def test_a_merged_checkpoint_draws_what_its_pipeline_draws() -> None:
    with attached(pipeline(), find(merged())):
        assert torch.equal(drawn(pipeline()), drawn(load_pipeline(merged())))


def test_exports_of_a_lora_draw_the_pictures_of_the_lora() -> None:
    made = []
    for path in (strong_lora(), exported("static-lora"), exported("kohya")):
        with attached(pipeline(), find(path)):
            made.append(drawn(pipeline()))
    torch.testing.assert_close(made[1], made[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made[2], made[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fera", *(pytest.param(one, marks=SLOW) for one in ("text", "merged"))])
def test_pictures_do_not_depend_on_the_batch_but_by_rounding(name: str) -> None:
    with attached(pipeline(), find(KINDS[name][1]())):
        torch.testing.assert_close(drawn(pipeline(), 1), drawn(pipeline(), 8), rtol=1e-4, atol=1e-4)


def test_an_adapter_that_reads_prompts_otherwise_says_so() -> None:
    told = {}
    for name in ("peft", "fera", "denoiser", "text", "diffusers-text", "merged"):
        with attached(pipeline(), find(KINDS[name][1]())) as told[name]:
            pass
    assert [name for name, on in told.items() if on.reads_otherwise] == ["text", "diffusers-text", "merged"]


def test_dropout_does_not_act_while_pictures_are_drawn(tmp_path: Path) -> None:
    shutil.copytree(strong_lora(), tmp_path / "dropped")
    settings = tmp_path / "dropped" / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"lora_dropout": 0.0', '"lora_dropout": 0.9'))
    made = []
    for path in (strong_lora(), tmp_path / "dropped"):
        with attached(pipeline(), find(path)):
            made.append(drawn(pipeline()))
    assert '"lora_dropout": 0.9' in settings.read_text()
    assert torch.equal(*made)


def test_names_and_digests_are_those_of_runs_folders_and_files() -> None:
    assert find(run("lora")).name == find(run("lora") / "adapter").name == "sd-lora"
    assert find(strong_lora()).name == "strong"
    assert find(in_parts()).name == "parts"
    file = exported("static-lora") / "pytorch_lora_weights.safetensors"
    assert find(file).name == find(file.parent).name == "static-lora"
    assert find(file).digest == find(file.parent).digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert find(run("lora")).digest == find(run("lora") / "adapter").digest
    assert find(by_hand("lora", text=True)).name == "lora-text"


def test_a_run_that_was_copied_is_named_by_its_folder_as_everything_else_is(tmp_path: Path) -> None:
    shutil.copytree(run("lora"), tmp_path / "copy")
    assert find(tmp_path / "copy").name == find(tmp_path / "copy" / "adapter").name == "copy"


def test_a_run_without_its_record_is_said_to_hold_its_adapter(tmp_path: Path) -> None:
    shutil.copytree(run("lora"), tmp_path / "copy")
    (tmp_path / "copy" / "run.json").unlink()
    with pytest.raises(UserError, match=r"copy has no run\.json; its adapter is in .*copy/adapter: give that folder$"):
        find(tmp_path / "copy")
    assert find(tmp_path / "copy" / "adapter").kind == "lora"


@pytest.mark.parametrize("make", [strong_lora, lambda: by_hand("fera")])
def test_weights_out_of_a_peft_folder_are_said_to_lack_their_settings(make: Any, tmp_path: Path) -> None:
    shutil.copy(make() / "adapter_model.safetensors", tmp_path / "third.safetensors")
    with pytest.raises(UserError, match=r"of a PEFT folder without their settings; keep adapter_config\.json beside"):
        check_fit(pipeline(), find(tmp_path / "third.safetensors"))


def test_other_weights_or_settings_give_another_digest(tmp_path: Path) -> None:
    for name in ("weights", "settings"):
        shutil.copytree(strong_lora(), tmp_path / name)
    file = tmp_path / "weights" / "adapter_model.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, file)
    settings = tmp_path / "settings" / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"lora_alpha": 2', '"lora_alpha": 4'))
    digests = {find(path).digest for path in (strong_lora(), tmp_path / "weights", tmp_path / "settings")}
    assert len(digests) == 3


def pickled_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.bin").write_bytes(b"\x80")
    return folder


def saved(tensors: dict[str, Tensor], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return file


def written(file: Path, content: bytes = b"x") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


ONE = {"weight": torch.zeros(2)}
REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": (lambda at: at / "gone", "there is no adapter at"),
    "empty": (lambda at: at, "holds no adapter"),
    "pickle": (lambda at: written(at / "lora.pt"), "is pickled, and pickled weights are not read"),
    "pickled-lora": (lambda at: written(at / "x" / "pytorch_lora_weights.bin").parent, "is pickled"),
    "pickled-peft": (lambda at: pickled_folder(at / "peft"), "adapter_model.bin is pickled"),
    "text": (lambda at: written(at / "notes.txt"), "is no adapter"),
    "torn": (lambda at: written(at / "torn.safetensors"), "cannot be read as safetensors"),
    "several": (lambda at: saved(ONE, saved(ONE, at / "x" / "a.safetensors").with_name("b.safetensors")).parent,
                "holds 2 safetensors files"),
    "loha": (lambda at: saved({"lora_unet_x.hada_w1_a": torch.zeros(2)}, at / "a.safetensors"), "is a LoHa of kohya"),
    "whole": (lambda at: saved({"model.diffusion_model.x": torch.zeros(2)}, at / "a.safetensors"), "is a whole model"),
    "unfinished": (lambda at: written(at / "run" / "config.json", b'{"format": 1, "status": "training"}').parent,
                   "is not a finished run"),
    "schedule": (lambda at: written(at / "s" / "gates.json", b"{}").parent, "cannot be read as a schedule of gates"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_adapter_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    with pytest.raises(UserError, match=words) as refused:
        find(make(tmp_path))
    assert "\n" not in str(refused.value)


def other_checkpoint(at: Path) -> Path:
    tiny_sd("epsilon").save_pretrained(at / "epsilon")
    return at / "epsilon"


def wider(at: Path) -> Path:
    pipe: Any = tiny_sd()
    from diffusers import UNet2DConditionModel

    pipe.unet = UNet2DConditionModel.from_config({**pipe.unet.config, "block_out_channels": (16, 32)})
    pipe.save_pretrained(at / "wider")
    return at / "wider"


def larger_lora(at: Path) -> Path:
    found = load_file(exported("static-lora") / "pytorch_lora_weights.safetensors")
    return saved({name: torch.cat([value, value], 1) for name, value in found.items()}, at / "larger.safetensors")


def test_layers_that_are_all_missing_are_said_to_be_none(tmp_path: Path) -> None:
    found = load_file(exported("static-lora") / "pytorch_lora_weights.safetensors")
    renamed = {name.replace("unet.", "transformer."): value for name, value in found.items()}
    with pytest.raises(UserError, match=r"none of its \d+ layers is there \(such as transformer\.\S+\)$"):
        check_fit(pipeline(), find(saved(renamed, tmp_path / "other.safetensors")))


def more_layers(at: Path) -> Path:
    found = load_file(exported("static-lora") / "pytorch_lora_weights.safetensors")
    extra = {name.replace("attn1", "attn7"): value for name, value in found.items()}
    return saved({name: value.clone() for name, value in (found | extra).items()}, at / "more.safetensors")


OTHERS = {
    "pipeline": lambda at: tiny_sd3_folder(at / "sd3"), "prediction": other_checkpoint, "width": wider,
    "rank": larger_lora, "layers": more_layers, "peft": lambda at: flow_lora(),
}  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=[SLOW] * (name in ("pipeline", "width")), id=name) for name, make in OTHERS.items()],
)
def test_an_adapter_of_another_model_is_refused_in_a_sentence_and_leaves_the_base(make: Any, tmp_path: Path) -> None:
    path, pipe = make(tmp_path), pipeline()
    before, weights = drawn(pipe), bits(pipe)
    with pytest.raises(UserError, match="does not fit this StableDiffusionPipeline") as refused:
        check_fit(pipe, find(path))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert all(torch.equal(bits(pipe)[key], value) for key, value in weights.items())
    np.testing.assert_array_equal(drawn(pipe), before)
