from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import CacheMixin, ClassifierFreeGuidance, ClassifierFreeZeroStarGuidance

from spectra.families import family_of
from spectra.recording.readings import SOLVED, miss
from spectra.recording.split import OFF, SILENT, UNMATCHED, Split, Watcher
from tests.spectra import guided
from tests.spectra.guided import Watched

# What a pipeline calls w, and the w of `uncond + w (cond - uncond)` that it amounts to.
FAMILIES = {
    guided.sd: [5.0, 5.0, 5.0],  # one call, uncond first
    guided.sd3: [5.0, 5.0, 5.0],
    guided.flux: [4.0, 4.0, 4.0],  # two calls in contexts, cond first; guidance_scale is embedded
    guided.wan: [5.0, 5.0, 3.0, 3.0],  # two transformers, each with its own scale
    guided.z_image: [4.0, 4.0, 4.0],  # a list, cond first, c + 3 (c - u), negated
    guided.lumina2: [4.0, 4.0, 4.0],  # two calls without contexts, negated
    guided.pixart: [4.5, 4.5, 4.5],  # half of the channels is a variance
}


def family_id(build: Any) -> str:
    return str(build.__name__)


@pytest.mark.parametrize("build", FAMILIES, ids=family_id)
def test_the_split_reproduces_what_the_scheduler_is_given(build: Any) -> None:
    watched = Watched(*build())
    assert [split.scale for split in watched.splits()] == FAMILIES[build]
    assert max(watched.errors()) < 1e-6
    assert watched.verdict == ""
    assert [split.cond.shape for split in watched.splits()] == [given.shape for given in watched.given]


@pytest.mark.parametrize("build", FAMILIES, ids=family_id)
def test_in_the_wrong_order_the_first_prediction_is_missed_by_more_than_a_tenth(build: Any) -> None:
    watched = Watched(*build())
    cond, uncond, scale = watched.splits()[0]
    m = watched.given[0]
    assert float((cond + scale * (uncond - cond) - m).norm() / m.norm()) > 0.1


@pytest.mark.parametrize("build", FAMILIES, ids=family_id)
def test_cond_is_what_the_network_says_with_the_prompt_alone(build: Any) -> None:
    """With guidance off, the first step is given the same cond."""
    off = {"guidance_scale": 0.0 if build is guided.z_image else 1.0}
    alone = Watched(*build(**off, **({"true_cfg_scale": 1.0} if build is guided.flux else {})))
    scale = {"guidance_scale": 1.0} if build is guided.flux else {}  # the embedded one changes the network
    both = Watched(*build(**scale))
    assert alone.taken == [OFF] * len(alone.given)
    torch.testing.assert_close(both.splits()[0].cond, alone.given[0], rtol=1e-4, atol=1e-4)


def test_rescaled_guidance_has_no_split_and_says_why() -> None:
    watched = Watched(*guided.sd(guidance_rescale=0.7))
    assert watched.taken == [f"{UNMATCHED} (guidance_rescale is 0.7)"] * 3


@pytest.mark.parametrize(
    ("build", "options"),
    [(guided.qwen, {}), (guided.lumina2, {"cfg_normalization": True})],
    ids=["qwen", "lumina2"],
)
def test_renormalised_guidance_has_no_split(build: Any, options: dict[str, Any]) -> None:
    assert Watched(*build(**options)).taken == [UNMATCHED] * 3


def test_guidance_that_is_cut_off_has_a_split_as_long_as_it_lasts() -> None:
    watched = Watched(*guided.lumina2(cfg_trunc_ratio=0.5))
    assert watched.taken[-1] == OFF
    assert isinstance(watched.taken[0], Split)


def test_modular_pipelines_are_split_and_their_guiders_asked_for_the_scale() -> None:
    plain = Watched(*guided.modular_wan(ClassifierFreeGuidance(guidance_scale=5.0)))
    assert [split.scale for split in plain.splits()] == [5.0] * 4
    assert plain.watcher.scale_source == "guidance_scale"
    original = ClassifierFreeGuidance(guidance_scale=5.0, use_original_formulation=True)
    assert [split.scale for split in Watched(*guided.modular_wan(original)).splits()] == [6.0] * 4
    assert torch.equal(plain.splits()[0].cond, Watched(*guided.modular_wan(original)).splits()[0].cond)


def test_guiders_that_scale_or_wait_are_not_taken_for_plain_guidance() -> None:
    for other in (ClassifierFreeGuidance(5.0, guidance_rescale=0.5), ClassifierFreeZeroStarGuidance(5.0)):
        assert Watched(*guided.modular_wan(other)).taken == [UNMATCHED] * 4
    late = Watched(*guided.modular_wan(ClassifierFreeGuidance(5.0, start=0.5)))
    assert late.taken[:2] == [OFF, OFF]
    assert [split.scale for split in late.taken[2:] if isinstance(split, Split)] == [5.0, 5.0]


def test_batches_of_pipelines_that_were_compiled_whole_are_split() -> None:
    pipe, call = guided.sd()
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    first, again = Watched(pipe, call), Watched(pipe, call)
    assert [split.scale for split in (*first.splits(), *again.splits())] == [5.0] * 6
    assert max(again.errors()) < 1e-6


def test_contexts_of_models_that_were_compiled_in_place_are_heard() -> None:
    pipe, call = guided.flux()
    pipe.transformer.compile(backend="eager")
    first, again = Watched(pipe, call), Watched(pipe, call)
    assert [split.scale for split in (*first.splits(), *again.splits())] == [4.0] * 6


@pytest.mark.parametrize("build", [guided.sd3, guided.flux, guided.z_image, guided.wan], ids=family_id)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_low_precision_is_no_obstacle(build: Any, kind: torch.dtype) -> None:
    pipe, call = build()
    pipe.to(kind)
    words = {name: _to(value, kind) for name, value in call.items()}
    watched = Watched(pipe, words)
    assert [split.scale for split in watched.splits()] == FAMILIES[build]
    assert watched.verdict == ""
    assert max(watched.errors()) < torch.finfo(kind).eps


def _to(value: Any, kind: torch.dtype) -> Any:
    if isinstance(value, list):
        return [_to(one, kind) for one in value]
    return value.to(kind) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


# Without a pipeline


class Denoiser(torch.nn.Module):
    def forward(self, output: Any) -> Any:
        return output


def watcher(**arguments: Any) -> tuple[Watcher, Denoiser]:
    pipe = SimpleNamespace(unet=Denoiser())
    return Watcher(pipe, family_of(pipe), arguments), pipe.unet


def fields(n: int = 2, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    return torch.randn(n, channels, 4, 4, generator=made), torch.randn(n, channels, 4, 4, generator=made)


@pytest.mark.parametrize("order", ["uncond first", "cond first"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("how", ["batch", "calls", "lists", "dictionary"])
def test_either_order_and_sign_of_every_kind_of_output_is_understood(order: str, sign: int, how: str) -> None:
    watch, denoiser = watcher(guidance_scale=3.0)
    c, u = fields()
    m = sign * (u + 3.0 * (c - u))
    one, two = (u, c) if order == "uncond first" else (c, u)
    with watch.watching():
        if how == "calls":
            denoiser((one,))
            denoiser((two,))
        else:
            both = torch.cat([one, two])
            denoiser({"batch": (both,), "lists": (list(both.unbind()),), "dictionary": {"sample": both}}[how])
        split = watch.take(m)
    assert isinstance(split, Split)
    assert torch.equal(split.cond, sign * c)
    assert torch.equal(split.uncond, sign * u)
    assert (split.scale, watch.scale_source) == (3.0, "guidance_scale")


@pytest.mark.parametrize("order", ["uncond first", "cond first"])
def test_a_scale_that_nobody_names_is_solved_and_said_to_be(order: str) -> None:
    watch, denoiser = watcher(guidance_scale=3.0)
    c, u = fields()
    with watch.watching():
        denoiser((torch.cat([u, c] if order == "uncond first" else [c, u]),))
        split = watch.take(u + 1.7 * (c - u))
    assert isinstance(split, Split)
    assert split.scale == pytest.approx(1.7, rel=1e-5)
    assert watch.scale_source == SOLVED
    assert torch.equal(split.cond, c)
    assert not watch.trusted


def test_an_unknown_mean_of_two_unlabelled_predictions_is_not_guessed() -> None:
    """0.3 of the one is 0.7 of the other."""
    watch, denoiser = watcher()
    c, u = fields()
    with watch.watching():
        denoiser((torch.cat([u, c]),))
        assert watch.take(u + 0.3 * (c - u)) == UNMATCHED


class Labelled(Denoiser, CacheMixin): ...


def test_contexts_that_guiders_name_say_which_prediction_is_which() -> None:
    watch, _ = watcher()
    watch.pipe.unet = Labelled()
    c, u = fields()
    with watch.watching():
        for name, output in (("pred_uncond", u), ("pred_cond", c)):
            with watch.pipe.unet.cache_context(name):
                watch.pipe.unet((output,))
        assert [call.context for call in watch.calls] == ["uncond", "cond"]
        split = watch.take(u + 0.3 * (c - u))
    assert isinstance(split, Split)
    assert torch.equal(split.cond, c)
    assert split.scale == pytest.approx(0.3)


def test_scales_are_read_as_the_pipeline_changes_them() -> None:
    watch, denoiser = watcher(guidance_scale=9.0)
    c, u = fields()
    with watch.watching():
        for w in (2.0, 3.0, 4.0):
            watch.pipe._guidance_scale = w
            denoiser((torch.cat([u, c]),))
            split = watch.take(u + w * (c - u))
            assert isinstance(split, Split)
            assert split.scale == w
    assert watch.verdict() == ""


def test_a_scale_per_frame_is_understood_and_is_no_number() -> None:
    watch, denoiser = watcher()
    c, u = fields()
    watch.pipe._guidance_scale = torch.linspace(1, 3, 3).reshape(1, 3, 1, 1)
    with watch.watching():
        denoiser((torch.cat([u, c]),))
        split = watch.take(u + watch.pipe._guidance_scale * (c - u))
    assert isinstance(split, Split)
    assert split.scale != split.scale
    assert torch.equal(split.cond, c)


def test_what_changes_after_the_first_step_is_found_at_the_end() -> None:
    watch, denoiser = watcher(guidance_scale=3.0)
    c, u = fields()
    with watch.watching():
        for factor in (1.0, 1.0, 0.9):
            denoiser((torch.cat([u, c]),))
            assert isinstance(watch.take(factor * (u + 3.0 * (c - u))), Split)
    assert watch.verdict() == UNMATCHED


def test_after_the_first_step_nothing_waits_for_the_device() -> None:
    """Tensors without data would refuse to be looked at."""
    watch, denoiser = watcher(guidance_scale=3.0)
    c, u = fields()
    with watch.watching():
        denoiser((torch.cat([u, c]),))
        watch.take(u + 3.0 * (c - u))
        c, u = c.to("meta"), u.to("meta")
        denoiser((torch.cat([u, c]),))
        split = watch.take(u + 3.0 * (c - u))
    assert isinstance(split, Split)
    assert split.cond.is_meta
    assert len(watch.misses) == 1


def test_equal_predictions_are_split_without_trusting_an_order() -> None:
    watch, denoiser = watcher(guidance_scale=3.0)
    c, u = fields()
    with watch.watching():
        denoiser((torch.cat([c, c]),))
        assert isinstance(watch.take(c), Split)
        denoiser((torch.cat([c, u]),))
        split = watch.take(u + 3.0 * (c - u))
    assert isinstance(split, Split)
    assert torch.equal(split.cond, c)


def test_a_denoiser_that_was_not_called_is_a_reason() -> None:
    watch, denoiser = watcher(guidance_scale=3.0)
    c, u = fields()
    denoiser((torch.cat([u, c]),))
    with watch.watching():
        assert watch.take(c) == SILENT


def test_more_predictions_than_two_are_a_reason() -> None:
    watch, denoiser = watcher(guidance_scale=3.0)
    c, u = fields()
    with watch.watching():
        for _ in range(3):
            denoiser((c,))
        assert watch.take(u) == "the denoiser was called 3 times between two steps of the scheduler"
        for _ in range(30):
            denoiser((c,))
        assert "more than 8 times" in str(watch.take(u))


def test_outputs_of_another_shape_are_a_reason() -> None:
    watch, denoiser = watcher(guidance_scale=3.0)
    c, u = fields()
    with watch.watching():
        denoiser((torch.cat([u, c, c]),))
        reason = watch.take(u)
    assert reason == "outputs of the denoiser, (6, 3, 4, 4), do not make up a prediction (2, 3, 4, 4)"


@pytest.mark.parametrize("place", ["at the beginning", "at the end"])
def test_a_prediction_may_be_a_part_of_the_output(place: str) -> None:
    """Variances and tokens of reference pictures are cut off behind, given frames in front."""
    watch, denoiser = watcher(guidance_scale=3.0)
    c, u = fields()
    more = torch.ones(2, 2, 4, 4)
    wide = [torch.cat([one, more] if place == "at the beginning" else [more, one], 1) for one in (u, c)]
    with watch.watching():
        denoiser((torch.cat(wide),))
        split = watch.take(u + 3.0 * (c - u))
    assert isinstance(split, Split)
    assert torch.equal(split.cond, c)


def test_outputs_are_let_go_of_at_once() -> None:
    watch, denoiser = watcher(guidance_scale=3.0)
    c, u = fields()
    with watch.watching():
        output = torch.cat([u, c])
        held = weakref.ref(output)
        denoiser((output,))
        split = watch.take(u + 3.0 * (c - u))
        del output, split
        gc.collect()
        assert held() is None


def test_only_the_pipelines_own_network_is_heard_and_only_while_watching() -> None:
    watch, _ = watcher(guidance_scale=3.0)
    before = Denoiser.__call__
    c, _ = fields()
    with watch.watching():
        Denoiser()((c,))
        assert not watch.calls
    assert Denoiser.__call__ is before
    assert "__call__" not in vars(Denoiser)


def test_the_check_tells_rounding_from_a_wrong_order() -> None:
    c, u = fields()
    right, allowed = miss((u + 3.0 * (c - u)).bfloat16(), c.bfloat16(), u.bfloat16(), 1.0, 3.0)
    wrong, _ = miss((u + 3.0 * (c - u)).bfloat16(), u.bfloat16(), c.bfloat16(), 1.0, 3.0)
    assert 0 < right < allowed < 0.1 * wrong
