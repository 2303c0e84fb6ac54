from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import einops
import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import (
    ClassifierFreeZeroStarGuidance,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from spectra import FilterBank
from spectra.errors import UserError
from spectra.gaussian import GaussianField
from spectra.guidance import (
    RULES,
    GuidanceRule,
    agreement,
    band_scale,
    cosine,
    guidance_energy,
    optimal_scale,
    rule,
)
from spectra.recording.split import Split
from spectra.schema import PAIRS
from spectra.signals import Level, Schedule, schedule_of
from spectra.velocity import band_products, least_squares_scale, prediction, velocity

BANK = FilterBank((0.8, 1.6, 3.2))
SCALES = (0.0, 1.0, 1.5, 3.5, 7.0)


def schedule(space: str = "flow", kind: str = "flow_prediction", sign: float = 1.0) -> Schedule:
    def at(timestep: Any, index: int | None) -> Level:
        raise AssertionError("the level is given")

    return Schedule(space, at, Level(0.0, 1.0, 0.0), kind, sign)


def level(space: str, angle: float = 0.3) -> Level:
    """A noise level of a state space, `angle` of the way from data to noise."""
    weights = {"flow": (1 - angle, angle), "vp": (math.cos(angle), math.sin(angle)), "ve": (1.0, 4 * angle)}
    return Level(1.0, *weights[space])


def velocities(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A state, and two velocities at it that have much in common; float64."""
    made = torch.Generator().manual_seed(0)
    x, u, d = (torch.randn(shape or (3, 4, 8, 8), generator=made, dtype=torch.float64) for _ in range(3))
    return x, 1.2 * u + 0.3 * d, u + 0.2


def combined(name: str, c: torch.Tensor, u: torch.Tensor, w: float, **options: Any) -> torch.Tensor:
    """A rule on flow velocities, beyond its zero steps."""
    made = rule(name, **({} if name == "cfg" else {"zero_init": 0}), **options)
    return made.combine(c, Split(c, u, w), level("flow"), schedule(), 3, 10, bank=BANK)


def close(one: torch.Tensor, two: torch.Tensor, size: float = 2e-6) -> None:
    assert one.shape == two.shape
    assert float((one.double() - two.double()).norm()) <= size * float(two.double().norm())


# The scale


def test_the_scale_is_the_argmin_of_the_remaining_energy_of_each_sample() -> None:
    _, c, u = velocities()
    s = least_squares_scale(c, u)
    grid = torch.linspace(-3, 3, 60001, dtype=torch.float64)
    cc, cu, uu = ((one * two).sum((1, 2, 3)) for one, two in ((c, c), (c, u), (u, u)))
    rest = cc[:, None] - 2 * grid * cu[:, None] + grid**2 * uu[:, None]
    torch.testing.assert_close(s.flatten(), grid[rest.argmin(1)], atol=1e-4, rtol=0)


def test_what_is_left_of_cond_is_orthogonal_to_uncond_and_never_longer_than_plain_guidance() -> None:
    _, c, u = velocities()
    rest = c - least_squares_scale(c, u) * u
    cos = torch.cosine_similarity(c.flatten(1), u.flatten(1))
    assert ((rest * u).sum((1, 2, 3)).abs() < 1e-6).all()
    energy = rest.square().sum((1, 2, 3))
    torch.testing.assert_close(energy, c.square().sum((1, 2, 3)) * (1 - cos**2))
    assert (energy <= (c - u).square().sum((1, 2, 3))).all()


@pytest.mark.parametrize("bank", [FilterBank(()), BANK], ids=["one band", "four bands"])
def test_the_scale_is_the_quotient_of_the_bands_sums(bank: FilterBank) -> None:
    _, c, u = velocities()
    _, both, own = band_products(c, u, bank).unbind(1)
    torch.testing.assert_close(both.sum(-1) / own.sum(-1), least_squares_scale(c, u).flatten())
    shares = own / own.sum(-1, keepdim=True)
    torch.testing.assert_close((shares * both / own).sum(-1), least_squares_scale(c, u).flatten())


def test_a_vanishing_uncond_has_scale_zero() -> None:
    c = torch.ones(1, 1, 2, 2)
    assert least_squares_scale(c, 0 * c) == 0


# The rules


def test_plain_guidance_is_bit_for_bit_what_pipelines_compute() -> None:
    x, c, u = (one.bfloat16() for one in velocities())
    given = rule("cfg").combine(x, Split(c, u, 7.5), level("vp"), schedule("vp", "epsilon"), 0, 10)
    assert torch.equal(given, u + 7.5 * (c - u))


@pytest.mark.parametrize("name", RULES)
def test_at_scale_one_every_rule_gives_cond(name: str) -> None:
    _, c, u = velocities()
    close(combined(name, c, u, 1.0), c)


@pytest.mark.parametrize("name", ["cfg-zero-star", "cfg-zero-star-band"])
@pytest.mark.parametrize("w", SCALES)
def test_parallel_velocities_are_left_alone_at_any_scale(name: str, w: float) -> None:
    _, _, u = velocities()
    close(combined(name, 1.7 * u, u, w), 1.7 * u)


@pytest.mark.parametrize("w", SCALES)
def test_zero_star_is_the_published_formula(w: float) -> None:
    _, c, u = velocities()
    s = least_squares_scale(c, u)
    close(combined("cfg-zero-star", c, u, w), (1 - w) * s * u + w * c)


@pytest.mark.parametrize("name", RULES)
def test_samples_do_not_see_each_other(name: str) -> None:
    _, c, u = velocities()
    close(combined(name, c[1:2], u[1:2], 3.5), combined(name, c, u, 3.5)[1:2])


@pytest.mark.parametrize("name", RULES)
def test_the_sign_of_the_scheduler_does_not_matter(name: str) -> None:
    x, c, u = velocities()
    made = rule(name, **({} if name == "cfg" else {"zero_init": 0}))
    given = [
        sign * made.combine(x, Split(sign * c, sign * u, 3.5), level("flow"), schedule(sign=sign), 3, 10, bank=BANK)
        for sign in (1.0, -1.0)
    ]
    close(given[1], given[0])


def test_the_rules_own_scale_takes_precedence() -> None:
    _, c, u = velocities()
    close(combined("cfg-zero-star", c, u, 9.0, scale=2.0), combined("cfg-zero-star", c, u, 2.0))


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (2, 3, 5, 8, 12)], ids=["pictures", "videos"])
def test_with_one_band_the_band_rule_is_zero_star(shape: tuple[int, ...]) -> None:
    _, c, u = velocities(*shape)
    one = combined("cfg-zero-star-band", c, u, 3.5, bank=FilterBank(()))
    close(one, combined("cfg-zero-star", c, u, 3.5))
    assert float((combined("cfg-zero-star-band", c, u, 3.5) - one).norm()) > 1e-3


def test_the_band_rule_removes_from_each_tone_what_is_shared_in_its_band() -> None:
    """Velocities of one low and one high tone, shared in different proportions: both shares are found."""
    wave = torch.cos(torch.pi * 7 * (2 * torch.arange(8) + 1) / 16)  # the highest mode of eight pixels
    low, high = torch.ones(1, 1, 8, 8), 2 * torch.outer(wave, wave)[None, None]
    bank = FilterBank((2.0,))
    u, c = low + high, 3.0 * low + 0.5 * high
    close(combined("cfg-zero-star-band", c, u, 4.0, bank=bank), c, 1e-5)
    assert float((combined("cfg-zero-star", c, u, 4.0) - c).norm() / c.norm()) > 0.5


def test_the_band_rule_unpacks_latents_and_packs_them_again() -> None:
    x, c, u = (one.float() for one in velocities())
    patches = {"p": 2, "q": 2}
    x_, c_, u_ = (einops.rearrange(one, "b c (h p) (w q) -> b (h w) (c p q)", **patches) for one in (x, c, u))
    made = rule("cfg-zero-star-band", zero_init=0, bank=BANK)

    def plain(field: torch.Tensor) -> torch.Tensor:
        return einops.rearrange(field, "b (h w) (c p q) -> b c (h p) (w q)", h=4, w=4, **patches)

    packed = made.combine(x_, Split(c_, u_, 3.5), level("flow"), schedule(), 3, 10, plain=plain)
    close(plain(packed), made.combine(x, Split(c, u, 3.5), level("flow"), schedule(), 3, 10))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_what_is_given_back_has_the_type_of_the_predictions_but_is_computed_in_float32(kind: torch.dtype) -> None:
    _, c, u = (one.to(kind) for one in velocities())
    given = combined("cfg-zero-star", c, u, 3.5)
    assert given.dtype == kind
    assert torch.equal(given, combined("cfg-zero-star", c.float(), u.float(), 3.5).to(kind))


@pytest.mark.parametrize("name", RULES)
def test_rules_and_agreement_never_wait_for_the_device(name: str) -> None:
    """Tensors without data would refuse to be looked at."""
    x, c, u = (one.to("meta") for one in velocities())
    split = Split(c, u, 3.5)
    for step in (0, 3):
        assert rule(name).combine(x, split, level("flow"), schedule(), step, 10, bank=BANK).is_meta
    assert agreement(x, split, level("flow"), schedule(), BANK).is_meta


# Velocities and predictions

KINDS = [
    ("flow", "flow_prediction"), ("flow", "epsilon"), ("flow", "sample"),
    ("vp", "epsilon"), ("vp", "v_prediction"), ("vp", "sample"),
    ("ve", "epsilon"), ("ve", "v_prediction"), ("ve", "sample"),
]  # fmt: skip


def predicted(kind: str, space: str, x0: torch.Tensor, eps: torch.Tensor, at: Level) -> torch.Tensor:
    length = math.hypot(at.signal, at.noise)
    v = (at.signal * eps - at.noise * x0) / length
    return {"epsilon": eps, "sample": x0, "v_prediction": v, "flow_prediction": eps - x0}[kind]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("space", "kind"), KINDS)
def test_velocity_follows_from_every_kind_of_prediction_and_leads_back_to_it(
    space: str, kind: str, sign: float
) -> None:
    x0, eps, _ = velocities()
    at = level(space)
    x = at.signal * x0 + at.noise * eps
    out = sign * predicted(kind, space, x0, eps, at)
    v = velocity(x, out, at, schedule(space, kind, sign))
    close(v, predicted("flow_prediction" if space == "flow" else "v_prediction", space, x0, eps, at), 1e-12)
    close(prediction(x, v, at, schedule(space, kind, sign)), out, 1e-12)


@pytest.mark.parametrize("name", ["cfg-zero-star", "cfg-zero-star-band"])
@pytest.mark.parametrize(("space", "kind"), KINDS)
def test_a_rule_gives_the_same_velocity_whatever_the_network_predicts(name: str, space: str, kind: str) -> None:
    x, c, u = velocities()
    at, direct = level(space), "flow_prediction" if space == "flow" else "v_prediction"
    made = rule(name, zero_init=0)
    outs = [prediction(x, v, at, schedule(space, kind)) for v in (c, u)]
    given = made.combine(x, Split(outs[0], outs[1], 3.5), at, schedule(space, kind), 3, 10, bank=BANK)
    expected = made.combine(x, Split(c, u, 3.5), at, schedule(space, direct), 3, 10, bank=BANK)
    close(velocity(x, given.double(), at, schedule(space, kind)), expected, 1e-5)


def test_the_scale_would_be_another_one_in_the_space_of_the_noise_or_the_clean_sample() -> None:
    x, c, u = velocities()
    at = level("flow")
    scales = [
        float(least_squares_scale(*(prediction(x, v, at, schedule("flow", kind)) for v in (c, u)))[0])
        for kind in ("flow_prediction", "epsilon", "sample")
    ]
    assert min(abs(a - b) for a, b in zip(scales, scales[1:] + scales[:1], strict=True)) > 0.02


def test_combining_clean_samples_with_the_scale_of_velocities_adds_a_multiple_of_the_state() -> None:
    x, c, u = velocities()
    at, w = level("flow"), 3.5
    s = least_squares_scale(c, u)
    x0_c, x0_u = x - at.noise * c, x - at.noise * u
    right = x - at.noise * combined("cfg-zero-star", c, u, w)
    close((1 - w) * s * x0_u + w * x0_c - right, (w - 1) * (1 - s) * x, 1e-5)


# The first steps


@pytest.mark.parametrize("kind", ["flow_prediction", "epsilon", "sample"])
def test_the_first_steps_have_no_velocity(kind: str) -> None:
    x, c, u = velocities()
    made = rule("cfg-zero-star", zero_init=2)
    for step in range(4):
        given = made.combine(x, Split(c, u, 3.5), level("flow"), schedule("flow", kind), step, 10)
        still = velocity(x, given.double(), level("flow"), schedule("flow", kind)).abs().max() < 1e-5
        assert still == (step < 2)


@pytest.mark.parametrize(("zero_init", "total", "steps"), [(1, 28, 1), (0, 28, 0), (3, 28, 3), (0.04, 50, 2),
                                                          (0.04, 20, 1), (0.001, 20, 1), (0.5, 20, 10)])  # fmt: skip
def test_zero_steps_are_a_number_or_a_fraction(zero_init: float, total: int, steps: int) -> None:
    made: Any = rule("cfg-zero-star", zero_init=zero_init)
    assert made.zero_steps(total) == steps


@pytest.mark.parametrize("k", [1, 3])
def test_with_euler_zero_steps_are_dropped_levels(k: int) -> None:
    made = rule("cfg-zero-star", zero_init=k)
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(8)
    levels = scheduler.sigmas[:-1].tolist()
    whole = euler(x, made, levels)
    assert torch.equal(whole, euler(x, rule("cfg-zero-star", zero_init=0), levels[k:]))
    assert not torch.equal(whole, euler(x, rule("cfg-zero-star", zero_init=0), levels))


def euler(x: torch.Tensor, made: GuidanceRule, levels: list[float]) -> torch.Tensor:
    """Sample with velocities that depend on state and level, by diffusers' own scheduler."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=levels)
    plan = schedule_of(scheduler, ("latent", "x0"))
    for step, t in enumerate(scheduler.timesteps):
        at = plan.at(t, step)
        c, u = torch.tanh(x) * (1 + at.noise), torch.sin(2 * x) - at.noise
        x = scheduler.step(made.combine(x, Split(c, u, 3.5), at, plan, step, len(levels)), t, x).prev_sample
    return x


@pytest.mark.parametrize("w", [1.5, 3.5, 7.5])
@pytest.mark.parametrize("zero_init", [0, 1, 2])
def test_zero_star_agrees_with_diffusers(w: float, zero_init: int) -> None:
    x, c, u = (one.float() for one in velocities())
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=w, zero_init_steps=zero_init)
    made = rule("cfg-zero-star", zero_init=zero_init)
    for step in range(4):
        guider.set_state(step, 10, torch.tensor(500))
        given = made.combine(x, Split(c, u, w), level("flow"), schedule(), step, 10)
        torch.testing.assert_close(given, guider.forward(c, u).pred, rtol=1e-5, atol=1e-5)


# Exact velocities of a mixture of four Gaussians, no network

MODES = 3.0 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
SPREAD = 0.5


def exact(x: torch.Tensor, s: float, modes: torch.Tensor) -> torch.Tensor:
    """E[eps - x0 | x] where x = (1 - s) x0 + s eps: (n, 2) -> (n, 2)."""
    variance = ((1 - s) * SPREAD) ** 2 + s**2
    away = x[:, None] - (1 - s) * modes
    weight = torch.softmax(-away.square().sum(-1) / (2 * variance), 1)
    x0 = (weight[..., None] * (modes + (1 - s) * SPREAD**2 / variance * away)).sum(1)
    return (x - (1 - s) * x0) / s - x0


def guided(name: str, zero_init: int, x: torch.Tensor, s: float, w: float, step: int) -> torch.Tensor:
    made = rule(name, **({} if name == "cfg" else {"zero_init": zero_init}))
    split = Split(exact(x, s, MODES[:1]), exact(x, s, MODES), w)
    return made.combine(x, split, Level(1000 * s, 1 - s, s), schedule(), step, 20).double()


def test_at_the_first_step_no_velocity_beats_strong_guidance_and_loses_to_weak_one() -> None:
    """Mean errors to the velocity of the mode that was asked for, and to the guided one."""
    x = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = exact(x, 1.0, MODES[:1])

    def error(given: torch.Tensor) -> float:
        return float((given - truth).norm(dim=1).mean())

    plain, star, nothing = (guided(*which, x, 1.0, 3.5, 0) for which in (("cfg", 0), ("cfg-zero-star", 0),
                                                                         ("cfg-zero-star", 1)))  # fmt: skip
    assert error(plain) == pytest.approx(7.5, abs=0.01)
    assert error(star) == pytest.approx(4.77, abs=0.03)
    assert error(nothing) == pytest.approx(3.17, abs=0.02)
    weak = error(guided("cfg", 0, x, 1.0, 1.5, 0))
    assert 1.49 < weak < 2.1 < error(nothing)
    assert error(guided("cfg", 0, x, 1.0, 2.0, 0)) < error(nothing) < error(guided("cfg", 0, x, 1.0, 2.2, 0))
    assert float(plain.norm(dim=1).mean()) == pytest.approx(10.5, abs=0.2)  # zero's error to the guided velocity


def sampled(name: str, zero_init: int, n: int = 1500, steps: int = 20, w: float = 3.5) -> torch.Tensor:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    levels = torch.linspace(1, 0, steps + 1).tolist()
    for step, (s, after) in enumerate(pairwise(levels)):
        x = x + (after - s) * guided(name, zero_init, x, s, w, step)
    return x


def energy_distance(one: torch.Tensor, two: torch.Tensor) -> float:
    return float(2 * torch.cdist(one, two).mean() - torch.cdist(one, one).mean() - torch.cdist(two, two).mean())


def test_scaling_and_zero_steps_each_bring_samples_nearer_to_the_mode_that_was_asked_for() -> None:
    """Energy distances after 20 Euler steps at w = 3.5; they depend on the spread of the modes, here 0.5."""
    truth = MODES[0] + SPREAD * torch.randn(1500, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ways = (("cfg", 0), ("cfg-zero-init", 1), ("cfg-zero-star", 0), ("cfg-zero-star", 1))
    distances = [energy_distance(sampled(*way), truth) for way in ways]
    assert distances == sorted(distances, reverse=True)
    assert distances == pytest.approx([0.825, 0.637, 0.274, 0.214], rel=0.12)


# What is refused


def flow_scheduler() -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    return scheduler


@pytest.mark.parametrize("name", RULES)
def test_flow_matching_with_euler_needs_no_warning(name: str) -> None:
    scheduler = flow_scheduler()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule(name).check(scheduler, schedule_of(scheduler, ("x0",)), {"guidance_rescale": 0.0})


@pytest.mark.parametrize("name", RULES)
def test_rescaling_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"guidance_rescale=0\.7 and the guidance rule"):
        rule(name).check(flow_scheduler(), schedule(), {"guidance_rescale": 0.7})


@pytest.mark.parametrize("space", ["vp", "ve"])
def test_zero_steps_are_refused_where_a_zero_velocity_moves(space: str) -> None:
    plan = schedule(space, "epsilon")
    with pytest.raises(UserError, match="zero_init is for flow matching"):
        rule("cfg-zero-star").check(flow_scheduler(), plan, {})
    rule("cfg-zero-star", zero_init=0).check(flow_scheduler(), plan, {})


def test_solvers_that_remember_the_zeros_are_warned_of() -> None:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(4)
    plan = schedule_of(scheduler, ("x0",))
    with pytest.warns(UserWarning, match="UniPCMultistepScheduler keeps the last 2 predictions"):
        rule("cfg-zero-star").check(scheduler, plan, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule("cfg-zero-star", zero_init=0).check(scheduler, plan, {})


def test_unknown_predictions_are_refused_by_rules_that_need_velocities() -> None:
    with pytest.raises(UserError, match="none is known for predictions of 'unknown'"):
        rule("cfg-zero-star").check(flow_scheduler(), schedule("unknown", "unknown"), {})
    rule("cfg").check(flow_scheduler(), schedule("unknown", "unknown"), {})


@pytest.mark.parametrize(
    "text",
    ["cfg", "cfg(scale=3.0)", "cfg-zero-star(zero_init=0)", "cfg-zero-star-band(bank=FilterBank(scales=(0.8, 1.6)))"],
)
def test_rules_are_read_as_cubes_keep_them(text: str) -> None:
    assert str(rule(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cfg(3)", "is not understood"),
        ("cfg(scale=high)", "is not understood"),
        ("cfg(scale='x')", "cannot have scale='x': give numbers"),
        ("cfg(scale=3", "is not understood"),
        ("none(scale=3)", "no guidance rule 'none'"),
    ],
)
def test_rules_that_cannot_be_read_are_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rule(text)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cfg-0", {}, "there is no guidance rule 'cfg-0': choose one of cfg, cfg-zero-init, cfg-zero-star, "),
        ("cfg", {"zero_init": 1}, "the guidance rule cfg has no option 'zero_init': it has scale"),
        ("cfg", {"scale": math.nan}, "a guidance scale is a finite number"),
        ("cfg-zero-star", {"zero_init": -1}, "zero_init is a number of steps or a fraction"),
        ("cfg-zero-star", {"zero_init": 1.5}, "zero_init is a number of steps or a fraction"),
        ("cfg-zero-star", {"zero_init": math.nan}, "zero_init is a number of steps or a fraction"),
    ],
)
def test_unknown_rules_and_bad_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rule(name, **options)


def test_what_a_step_cannot_do_is_said() -> None:
    x, c, u = velocities()
    split = Split(c, u, 3.5)
    with pytest.raises(UserError, match="zero_init=10 leaves none of 10 steps"):
        rule("cfg-zero-star", zero_init=10).combine(x, split, level("flow"), schedule(), 0, 10)
    with pytest.raises(UserError, match="no velocity where there is no signal"):
        rule("cfg-zero-star").combine(x, split, Level(999.0, 0.0, 1.0), schedule("vp", "epsilon"), 0, 10)
    with pytest.raises(UserError, match="needs a filter bank"):
        rule("cfg-zero-star-band").combine(x, split, level("flow"), schedule(), 3, 10)
    with pytest.raises(UserError, match="several scales at once"):
        rule("cfg").combine(x, Split(c, u, math.nan), level("flow"), schedule(), 0, 10)


def test_a_rule_reads_as_its_name_and_what_was_chosen() -> None:
    assert [str(rule(name)) for name in RULES] == list(RULES)
    assert str(rule("cfg-zero-star", zero_init=2, scale=5.0)) == "cfg-zero-star(scale=5.0, zero_init=2)"


# Cubes


def cube_of(pairs: torch.Tensor) -> xr.Dataset:
    """A cube with the agreement (run, step, pair, band), and a last step without predictions."""
    values = np.concatenate([pairs.numpy(), np.full_like(pairs[:, :1].numpy(), np.nan)], 1)
    return xr.Dataset({"agreement": (("run", "step", "pair", "band"), values)}, {"pair": list(PAIRS)})


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (2, 3, 5, 8, 12)], ids=["pictures", "videos"])
@pytest.mark.parametrize(("space", "kind"), KINDS)
def test_agreement_sums_to_the_products_of_velocities(shape: tuple[int, ...], space: str, kind: str) -> None:
    x, c, u = velocities(*shape)
    outs = [prediction(x, v, level(space), schedule(space, kind)) for v in (c, u)]
    pairs = agreement(x, Split(outs[0], outs[1], 3.5), level(space), schedule(space, kind), BANK)
    assert pairs.shape == (shape[0], len(PAIRS), BANK.bands)
    assert pairs.dtype == torch.float32
    whole = torch.stack([(one * two).flatten(1).sum(1) for one, two in ((c, c), (c, u), (u, u))], 1)
    close(pairs.sum(-1), whole, 1e-6)
    own = BANK.power(u)
    close(pairs[:, 2], own.sum(tuple(range(1, own.ndim - 1))), 1e-6)


def test_agreement_of_different_velocities_is_the_product_with_the_filtered_one() -> None:
    x, c, u = velocities()
    pairs = agreement(x, Split(c, u, 3.5), level("flow"), schedule(), BANK)
    close(pairs[:, 1], (c[:, :, None] * BANK.split(u)).sum((1, 3, 4)), 1e-6)


def test_a_cube_gives_the_scale_the_cosine_and_the_energy_of_guidance() -> None:
    x, c, u = velocities()
    pairs = agreement(x, Split(c, u, 3.5), level("flow"), schedule(), BANK)
    cube = cube_of(pairs[:, None])
    s = least_squares_scale(c, u)
    np.testing.assert_allclose(optimal_scale(cube)[:, 0], s.flatten(), rtol=1e-6)
    cos = torch.cosine_similarity(c.flatten(1), u.flatten(1))
    np.testing.assert_allclose(cosine(cube)[:, 0], cos, rtol=1e-6)
    energy = guidance_energy(cube).isel(step=0)
    assert energy.dims == ("rule", "run", "band")
    np.testing.assert_allclose(energy.sel(rule="cfg"), BANK.power(c - u).sum(1), rtol=1e-4)
    np.testing.assert_allclose(energy.sel(rule="cfg-zero-star"), BANK.power(c - s * u).sum(1), rtol=1e-4)
    total = energy.sum("band")
    assert (total.sel(rule="cfg-zero-star") < total.sel(rule="cfg")).all()
    np.testing.assert_allclose(band_scale(cube)[:, 0], (pairs[:, 1] / pairs[:, 2]).numpy(), rtol=1e-6)


@pytest.mark.parametrize("measure", [optimal_scale, cosine, band_scale, guidance_energy])
def test_after_the_last_prediction_there_is_nothing(measure: Any) -> None:
    _, c, u = velocities()
    value = measure(cube_of(band_products(c, u, BANK)[:, None].float()))
    assert np.isnan(value.isel(step=-1)).all()
    assert np.isfinite(value.isel(step=0)).all()


@pytest.mark.parametrize("measure", [optimal_scale, cosine, band_scale, guidance_energy])
def test_a_cube_without_agreement_says_how_to_record_it(measure: Any) -> None:
    with pytest.raises(UserError, match="record it with the signals cond, uncond and guidance"):
        measure(xr.Dataset())


def test_guidance_of_a_gaussian_field_has_the_energy_of_the_closed_form() -> None:
    """Fields that differ in the mean only: `c - u = -((1 - a K) / b)(m_c - m_u)` with K = a S / (a^2 S + b^2)."""
    base = GaussianField.power_law((2, 8, 12))
    mean = base.mean + np.random.default_rng(0).standard_normal(base.mean.shape)
    field = GaussianField(mean, base.variance)
    x = torch.randn(4, 2, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = level("flow", 0.6)
    split = Split(field.predict(x, "flow", *at[1:]), base.predict(x, "flow", *at[1:]), 3.0)
    cube = cube_of(agreement(x, split, at, schedule(), BANK)[:, None])
    gain = at.signal * base.variance / (at.signal**2 * base.variance + at.noise**2)
    delta = (1 - at.signal * gain) / at.noise * (field.mean - base.mean)
    expected = np.einsum("chw,khw->k", delta**2, BANK.transfer(8, 12))
    np.testing.assert_allclose(guidance_energy(cube).sel(rule="cfg").isel(step=0), np.tile(expected, (4, 1)), rtol=1e-4)
