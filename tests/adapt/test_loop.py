"""The one loop: equal chance for every method, a frozen base, honest measurements, finished runs that are whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from adapt.draws import draw
from adapt.history import History
from adapt.loop import fit, train
from adapt.methods import load_adapter
from adapt.prior import Prior
from adapt.processes import accelerated
from adapt.state import read_record
from adapt.step import conditioning_of, fecl_weight, step_loss
from adapt.task import Task, prepare
from adapt.validate import make_grid, validate
from spectra.errors import UserError
from spectra.models import load_pipeline, model_hash
from tests.adapt.small import config, data, finished, model, write_pictures
from tests.reports.fixtures import write_cube

METHODS = ("lora", "fera")
FAMILIES = ("sd", "sd3")


def prepared(out: Path, family: str = "sd", **changes: Any) -> Task:
    return prepare(config(out, family, **changes), torch.device("cpu"))


def fitted(task: Task) -> History:
    with accelerated(task.config) as accelerator:
        return fit(task, accelerator)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_lowers_the_loss_and_writes_everything(method: str, family: str) -> None:
    result = finished(method, family)
    assert result.error_after < result.error_before
    assert sorted(path.name for path in result.path.iterdir()) == [
        "adapter",
        "evaluation.zarr",
        "metrics.zarr",
        "run.json",
    ]
    assert sorted(path.name for path in (result.path / "adapter").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    assert not list(result.path.parent.glob(".*"))


@pytest.mark.parametrize("method", METHODS)
def test_the_record_says_what_was_done(method: str) -> None:
    result = finished(method)
    record = read_record(result.path)
    assert record == result.record | {"format": 1, "status": "complete"}
    assert (record["method"], record["steps"], record["seed"], record["prior"]) == (method, 4, 0, None)
    assert record["model_hash"] == model_hash(model("sd"))
    assert record["config"]["lr"] > 0
    assert "conv1" in record["config"]["targets"]
    assert record["versions"]["torch"] == torch.__version__
    assert 0 < record["seconds_train"] < record["seconds_total"]
    assert record["peak_memory_mib"] > 50


@pytest.mark.parametrize("family", FAMILIES)
def test_both_methods_have_equal_parameters_but_for_the_router(family: str) -> None:
    lora, fera = (finished(method, family).record for method in METHODS)
    assert lora["adapter_parameters"] == fera["adapter_parameters"] == lora["trainable_parameters"]
    assert 0 < fera["trainable_parameters"] - fera["adapter_parameters"] < 1000


@pytest.mark.parametrize("method", METHODS)
def test_metrics_are_labelled_and_finite(method: str) -> None:
    metrics = xr.open_zarr(finished(method).path / "metrics.zarr", consolidated=False).load()
    assert metrics.train_loss.dims == ("step",)
    assert metrics.validation_error.dims == ("eval_step", "level", "sample", "draw")
    assert metrics.validation_error.shape == (3, 3, 2, 2)
    assert metrics.eval_step.values.tolist() == [0, 2, 4]
    assert (np.diff(metrics.noise_level) > 0).all()
    b2 = metrics.noise_level.values**2  # the state is a x0 + b noise with a^2 + b^2 = 1
    np.testing.assert_allclose(metrics.log_snr, np.log((1 - b2) / b2), rtol=1e-6)
    assert all(np.isfinite(metrics[name]).all() for name in metrics.data_vars if name != "noise_loss")
    assert metrics.noise_loss.dims == ("step", "noise_part")
    assert np.isfinite(metrics.noise_loss).sum("noise_part").min() > 0  # empty parts are NaN
    assert metrics.band_error.dims == ("eval_step", "level", "sample", "draw", "band")
    assert (metrics.gradient_norm > 0).all()
    assert metrics.learning_rate.values.argmax() in (0, 1)
    assert ("gates" in metrics) == (method == "fera")
    if method == "fera":
        assert metrics.gates.dims == ("eval_step", "level", "sample", "expert")
        np.testing.assert_allclose(metrics.gates.mean("expert"), 1, rtol=1e-5)


def test_methods_start_from_the_same_error_of_the_base_cell_by_cell() -> None:
    before = [
        xr.open_zarr(finished(m).path / "metrics.zarr", consolidated=False).validation_error[0].values for m in METHODS
    ]
    np.testing.assert_allclose(before[0], before[1], rtol=1e-5)


def seen_by(task: Task) -> list[dict[str, torch.Tensor]]:
    """What the denoiser is given in every call that trains."""
    calls: list[dict[str, torch.Tensor]] = []

    def keep(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            calls.append({name: value.clone() for name, value in kwargs.items() if isinstance(value, torch.Tensor)})

    task.denoiser.register_forward_pre_hook(keep, with_kwargs=True)
    fitted(task)
    return calls


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_seeds_train_every_method_on_the_same_inputs(tmp_path: Path, family: str) -> None:
    lora, fera = (
        seen_by(prepared(tmp_path / "run", family, method=m, fecl_weight=0.1 * (m == "fera"))) for m in METHODS
    )
    assert len(lora) == len(fera) == 4
    for one, other in zip(lora, fera, strict=True):
        assert one.keys() == other.keys() >= {"timestep", "encoder_hidden_states"}
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(lora[0]["timestep"], lora[1]["timestep"])


def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> bytes:
        path = train(config(tmp_path / name, method="fera", seed=seed)).path
        return (path / "adapter" / "adapter_model.safetensors").read_bytes()

    first = weights("a", 0)
    assert weights("b", 0) == first
    assert weights("c", 1) != first


@pytest.mark.parametrize("method", METHODS)
def test_only_the_adapter_learns(tmp_path: Path, method: str) -> None:
    task = prepared(tmp_path / "run", method=method)
    before = {name: value.clone() for name, value in task.denoiser.named_parameters()}
    fitted(task)
    moved = {name for name, value in task.denoiser.named_parameters() if not torch.equal(value, before[name])}
    trained = {name for name, value in task.denoiser.named_parameters() if value.requires_grad}
    assert moved == trained
    assert model_hash(task.pipe) == task.model_hash


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(config(tmp_path / "run", method="fera"))
    assert torch.equal(torch.rand(3), expected)


def test_dropped_captions_get_the_empty_prompt_and_others_keep_theirs(tmp_path: Path) -> None:
    task = prepared(tmp_path / "run", "sd3", caption_dropout=0.5)
    draws = next(d for step in range(9) if (d := draw(0, step, 4, 6, task.shape, 0.5)).dropped.sum() == 2)
    for name, value in conditioning_of(task, draws).items():
        for i, row in enumerate(draws.rows):
            expected = task.train.empty[name][0] if draws.dropped[i] else task.train.conditioning([row])[name][0]
            assert torch.equal(value[i], expected)


def test_the_validation_error_is_that_of_the_prediction(tmp_path: Path) -> None:
    task = prepared(tmp_path / "run")
    grid = make_grid(task)
    found = validate(task, grid).error
    level, sample, which = 1, 1, 0
    x0, noise = task.heldout.latents([sample])[0], grid.noise[sample][which]
    t = grid.timesteps[level]
    scheduler = task.pipe.scheduler
    noisy = scheduler.add_noise(x0[None], noise[None], t[None])
    hidden = task.heldout.conditioning([sample])["encoder_hidden_states"]
    with torch.no_grad():
        answer = task.denoiser(noisy, t, encoder_hidden_states=hidden).sample
    expected = (answer - scheduler.get_velocity(x0[None], noise[None], t[None])).square().mean()
    torch.testing.assert_close(found[level, sample, which], expected, rtol=1e-4, atol=1e-6)


def test_the_consistency_loss_adds_to_the_error_and_compares_with_the_base(tmp_path: Path) -> None:
    task = prepared(tmp_path / "run", method="fera")
    draws = draw(0, 0, 3, 6, task.shape, 0.0)
    hidden, t = conditioning_of(task, draws), torch.tensor([400, 500, 600])
    with torch.no_grad():
        untrained = task.answer(task.denoiser, draws.noise, t, hidden)
        for name, value in task.denoiser.named_parameters():
            if value.requires_grad and "fera_B" in name:
                value += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
        with task.method.base(task.denoiser):
            torch.testing.assert_close(task.answer(task.denoiser, draws.noise, t, hidden), untrained)
        assert not torch.allclose(task.answer(task.denoiser, draws.noise, t, hidden), untrained)
    loss = step_loss(task, task.denoiser, draws, 0.5).loss
    assert loss > step_loss(task, task.denoiser, draws).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.denoiser.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", ["cube", "prior"])
def test_a_prior_starts_the_router_and_is_named_in_the_record(tmp_path: Path, kind: str) -> None:
    path = write_cube(tmp_path / "probe.zarr", model_hash=model_hash(model("sd")))
    if kind == "prior":
        path = Prior.from_cube(path).save(tmp_path / "prior.json")
    result = train(config(tmp_path / "run", method="fera", prior=path))
    assert result.record["prior"]["path"] == str(path)
    assert result.record["prior"]["model_hash"] == result.record["model_hash"]
    gates = xr.open_zarr(result.path / "metrics.zarr", consolidated=False).gates[0].mean("sample").values
    assert np.ptp(gates, axis=0).max() > 0.3  # over noise levels: without a prior the start is almost uniform
    assert json.loads((result.path / "adapter" / "adapter_config.json").read_text())["feature_mean"]


def test_a_prior_of_another_model_or_for_other_experts_is_refused(tmp_path: Path) -> None:
    other = write_cube(tmp_path / "other.zarr", model_hash="0" * 32)
    with pytest.raises(UserError, match="learned from"):
        train(config(tmp_path / "run", method="fera", prior=other))
    same = write_cube(tmp_path / "same.zarr", model_hash=model_hash(model("sd")))
    saved = Prior.from_cube(same, experts=3).save(tmp_path / "prior.json")
    with pytest.raises(UserError, match="num_experts"):
        train(config(tmp_path / "run", method="fera", prior=saved, experts=2))
    assert not (tmp_path / "run").exists()


def test_the_weight_of_the_consistency_loss_rises_and_skips_steps(tmp_path: Path) -> None:
    settings = config(tmp_path, method="fera", steps=100, fecl_weight=0.2, fecl_every=5, fecl_warmup=0.5)
    weights = [fecl_weight(settings, step) for step in range(100)]
    assert [step for step, weight in enumerate(weights) if weight > 0] == list(range(0, 100, 5))
    kept = weights[::5]
    assert kept == sorted(kept)
    assert kept[0] < 0.01
    assert kept[-1] == 0.2


@pytest.mark.parametrize("method", METHODS)
def test_mixed_precision_trains_too(tmp_path: Path, method: str) -> None:
    result = train(config(tmp_path / method, method=method, precision="bf16"))
    assert result.error_after < result.error_before
    assert result.error_after != finished(method).error_after


def test_an_accelerator_of_the_caller_is_left_as_it_was(tmp_path: Path) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    own = Accelerator()
    try:
        with accelerated(config(tmp_path / "run", precision="bf16")) as inner:
            assert inner.mixed_precision == "bf16"
        assert own.mixed_precision == "no"
        assert own.sync_gradients
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_a_precision_that_the_device_lacks_is_a_sentence(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this device has fp16")
    with pytest.raises(UserError, match=r"precision 'fp16' .*; choose bf16 or no"):
        train(config(tmp_path / "run", precision="fp16"))


def test_a_base_pass_on_part_of_the_batch_adds_no_noise_before_there_is_a_correction(tmp_path: Path) -> None:
    """Passes over batches of different size differ by rounding, which the consistency loss must not pull on."""
    norms = []
    for parts in (1, 2, 4):
        settings = config(
            tmp_path / str(parts), method="fera", batch=8, steps=1, accumulate=parts, fecl_weight=0.1, fecl_share=0.5,
            fecl_warmup=0.0,
        )  # fmt: skip
        metrics = xr.open_zarr(train(settings).path / "metrics.zarr", consolidated=False)
        norms.append(float(metrics.gradient_norm[0]))
    assert norms[1:] == pytest.approx([norms[0]] * 2, rel=1e-3)


def test_accumulated_parts_give_the_update_of_the_whole_batch(tmp_path: Path) -> None:
    same: dict[str, Any] = {"method": "fera", "batch": 4, "steps": 2, "optimizer": "sgd", "lr": 1.0}
    whole, parts = (prepared(tmp_path / "run", **same, accumulate=n) for n in (1, 4))  # AdamW magnifies float error
    histories = [fitted(task) for task in (whole, parts)]
    torch.testing.assert_close(histories[0].losses, histories[1].losses, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(histories[0].noise_losses, histories[1].noise_losses, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(histories[0].gradient_norms, histories[1].gradient_norms, rtol=1e-4, atol=1e-7)
    for one, other in zip(whole.denoiser.parameters(), parts.denoiser.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_mapping_of_settings_is_a_configuration_too(tmp_path: Path) -> None:
    settings = config(tmp_path / "run").model_dump() | {"steps": 1}
    assert train(settings).record["steps"] == 1
    with pytest.raises(UserError, match="unknown setting 'stepps'; did you mean 'steps'"):
        train(settings | {"stepps": 2})


def test_the_environment_does_not_divide_the_loss_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    one, other = finished("lora"), train(config(tmp_path / "run"))
    norms = [xr.open_zarr(run.path / "metrics.zarr", consolidated=False).gradient_norm.load() for run in (one, other)]
    xr.testing.assert_identical(*norms)


def test_every_module_learns_in_training_mode_and_is_measured_in_the_other(tmp_path: Path) -> None:
    task, modes = prepared(tmp_path / "run", dropout=0.2), set()

    def keep(*_: Any) -> None:
        modes.add((torch.is_grad_enabled(), *{module.training for module in task.denoiser.modules()}))

    task.denoiser.register_forward_pre_hook(keep)
    fitted(task)
    assert modes == {(True, True), (False, False)}


def test_a_missing_optimizer_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapt.optimisers.find_spec", lambda package: None)
    with pytest.raises(UserError, match="optimizer 'adafactor' needs the package transformers"):
        train(config(tmp_path / "run", optimizer="adafactor", model="no-such-model"))


def test_a_batch_that_cannot_be_split_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"batch of 3 cannot be split evenly over 1 processes and 2 accumulated parts"):
        train(config(tmp_path / "run", accumulate=2))


@pytest.mark.parametrize("method", METHODS)
def test_recomputed_activations_train_the_same_adapter(tmp_path: Path, method: str) -> None:
    plain, saving = (prepared(tmp_path / "run", method=method, steps=2, checkpointing=c) for c in (False, True))
    histories = [fitted(task) for task in (plain, saving)]
    assert saving.denoiser.is_gradient_checkpointing
    torch.testing.assert_close(histories[0].losses, histories[1].losses, rtol=1e-6, atol=0)
    for one, other in zip(plain.denoiser.parameters(), saving.denoiser.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_compiled_blocks_train_the_same_adapter(tmp_path: Path, method: str) -> None:
    plain, compiled = (prepared(tmp_path / "run", "sd3", method=method, steps=2, compile=c) for c in (False, True))
    histories = [fitted(task) for task in (plain, compiled)]
    torch.testing.assert_close(histories[0].losses, histories[1].losses, rtol=1e-4, atol=1e-6)


def test_the_moving_average_is_measured_and_saved(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    plain = finished("lora")
    averaged = train(config(tmp_path / "run", ema=0.5))
    weights = [load_file(run.path / "adapter" / "adapter_model.safetensors") for run in (plain, averaged)]
    assert averaged.error_before == plain.error_before
    assert averaged.error_after != plain.error_after
    sizes = [sum(float(value.norm()) for name, value in one.items() if "lora_B" in name) for one in weights]
    assert 0 < sizes[1] < sizes[0]  # B starts at zero, so its average lags behind


def test_previews_change_nothing_but_the_pictures(tmp_path: Path) -> None:
    plain = finished("fera")
    shown = train(config(tmp_path / "run", method="fera", preview_every=3, preview_prompts=["a ramp"]))
    numbers = [xr.open_zarr(run.path / "metrics.zarr", consolidated=False).load() for run in (plain, shown)]
    xr.testing.assert_identical(*numbers)
    files = ("adapter", "adapter_model.safetensors")
    assert shown.path.joinpath(*files).read_bytes() == plain.path.joinpath(*files).read_bytes()
    previews = shown.path / "previews"
    assert sorted(path.name for path in previews.iterdir()) == ["step-000000", "step-000003"]
    first, later = (previews / name / "0.png" for name in ("step-000000", "step-000003"))
    assert first.read_bytes() != later.read_bytes()
    assert json.loads((first.parent / "prompts.json").read_text())["prompts"] == ["a ramp"]


def test_who_watches_is_told_losses_by_noise_and_measurements(tmp_path: Path) -> None:
    told: list[dict[str, float]] = []
    train(config(tmp_path / "run", method="fera"), watch=lambda values: told.append(dict(values)))
    steps, measured = [one for one in told if "loss" in one], [one for one in told if "validation/error" in one]
    assert len(steps) == 2  # as often as it is validated here
    assert len(measured) == 3
    assert any(name.startswith("loss/noise_") for name in steps[0])
    assert {"gradient_norm", "lr"} <= steps[0].keys()
    assert {"validation/gate_0", "validation/gate_2"} <= measured[0].keys()
    assert all(np.isfinite(value) for one in told for value in one.values())


def test_a_tracker_is_told_what_who_watches_is_told(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    told: list[float] = []
    tracked: dict[str, Any] = {"method": "fera", "trackers": ["tensorboard"], "project": "ramps"}
    result = train(config(tmp_path / "run", **tracked), watch=lambda values: told.append(values.get("loss", np.nan)))
    found = events.EventAccumulator(str(result.path / "logs" / "ramps")).Reload()
    assert [event.value for event in found.Scalars("loss")] == pytest.approx([one for one in told if one == one])
    assert [event.step for event in found.Scalars("validation/gate_1")] == [0, 2, 4]
    assert {"lr", "gradient_norm", "validation/error"} <= set(found.Tags()["scalars"])


@pytest.mark.parametrize("optimizer", ["prodigy", "adafactor", "sgd"])
def test_other_optimizers_train(tmp_path: Path, optimizer: str) -> None:
    if optimizer == "prodigy":
        pytest.importorskip("prodigyopt")
    history = fitted(prepared(tmp_path / "run", optimizer=optimizer, lr=None if optimizer == "prodigy" else 0.05))
    errors = [float(one.error.mean()) for one in history.validations.values()]
    assert errors[-1] < errors[0]


def test_min_snr_and_logit_normal_change_the_loss_only(tmp_path: Path) -> None:
    plain = finished("lora")
    other = train(config(tmp_path / "run", weighting="min_snr", timesteps="logit_normal"))
    assert other.error_before == plain.error_before
    assert other.error_after != plain.error_after


def test_without_a_heldout_folder_some_pictures_are_held_out_by_content(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 5)
    task = prepared(tmp_path / "run", data=folder)
    assert (len(task.train), len(task.heldout)) == (4, 1)
    assert not set(task.train.keys) & set(task.heldout.keys)
    held = task.heldout.captions
    for suffix in (".png", ".txt"):
        for i in range(5):
            (folder / f"{i}{suffix}").rename(folder / f"{(i + 2) % 5}-new{suffix}")
    assert prepared(tmp_path / "run", data=folder).heldout.captions == held
    with pytest.raises(UserError, match="too few to hold one out"):
        prepared(tmp_path / "run", data=write_pictures(tmp_path / "one", 1))


def test_progress_tells_every_phase_to_its_end(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    train(config(tmp_path / "run"), lambda *report: told.append(report))
    last = {phase: (done, total) for phase, done, total in told}
    assert list(dict.fromkeys(phase for phase, _, _ in told)) == ["encode", "validate", "train", "sample"]
    assert all(done == total for done, total in last.values())


def test_a_loss_that_is_not_a_number_ends_the_run_with_a_diagnosis(tmp_path: Path) -> None:
    words = r"not a number any more at step \d+ of training .*; use a lower learning rate .*; nothing was kept"
    with pytest.raises(UserError, match=words):
        train(config(tmp_path / "run", lr=1e30, steps=15, clip=1e30, warmup=0.0, eval_every=20))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_diverges_keeps_its_last_good_state(tmp_path: Path) -> None:
    words = r"diverges: at step \d+ .* use a lower learning rate .*; the last good state is .*state/step-0000\d\d"
    with pytest.raises(UserError, match=words):
        train(config(tmp_path / "run", lr=0.5, steps=60, checkpoint_every=1, lr_schedule="constant", eval_every=4))
    kept = list((tmp_path / "run" / "state").iterdir())
    assert len(kept) == 1
    assert load_adapter(load_pipeline(model("sd")).unet, kept[0] / "adapter") == "lora"


def test_an_existing_run_is_refused_before_any_work(tmp_path: Path) -> None:
    write_pictures(tmp_path / "run", 1)
    with pytest.raises(UserError, match="exists; choose another name"):
        train(config(tmp_path / "run", model="no-such-model"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "no-such-model"}, "no-such-model"),
        ({"data": Path("/no/such/folder")}, "does not exist"),
        ({"targets": ["to_qq"]}, "'to_qq' matches no"),
        ({"method": "fera", "prior": Path("/no/such/cube.zarr")}, "probe the model first"),
        ({"method": "fera", "prior": Path("/no/such/prior.json")}, "probe the model first"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        train(config(tmp_path / "run", **change))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_picture_ends_the_run_by_its_name(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data(), tmp_path / "data"))
    (folder / "train" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(UserError, match=r"3\.png is"):
        train(config(tmp_path / "run", data=folder))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_saved_lora_is_a_folder_that_peft_reads(tmp_path: Path) -> None:
    from peft import PeftModel

    path = finished("lora").path / "adapter"
    ours, theirs = (load_pipeline(model("sd")).unet for _ in range(2))
    assert load_adapter(ours, path) == "lora"
    wrapped = PeftModel.from_pretrained(theirs, str(path))
    call = {"sample": torch.randn(1, 4, 16, 16), "timestep": 500, "encoder_hidden_states": torch.randn(1, 16, 32)}
    with torch.no_grad():
        bare = load_pipeline(model("sd")).unet(**call).sample
        adapted = ours(**call).sample
        torch.testing.assert_close(adapted, wrapped(**call).sample)
    assert not torch.allclose(adapted, bare)
