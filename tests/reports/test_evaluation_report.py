"""A report on an evaluation alone: which adapter is better, where, how sure, with numbers computed another way."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import reports
from reports import Report
from reports.evaluated import read_evaluation
from reports.evaluation_pictures import memory_section
from reports.evaluation_words import decisive, headline
from reports.evidence import moved, number, would_show
from reports.metrics.results import Comparison, Measure
from tests.reports.metrics.fixtures import HOSTILE, evaluation, write_evaluation
from tests.reports.test_page import Outline


@functools.cache
def different() -> xr.Dataset:
    return evaluation(strength=(0, 1, 0.8), prompts=8, seeds=2, unrelated=3, heldout=20, train=6)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return reports.build([write_evaluation(tmp_path_factory.mktemp("e") / "two.zarr", different())])


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return report.to_html()


def test_the_first_sentence_says_which_is_better_and_by_how_much(report: Report) -> None:
    errors = different().validation_error.mean(("level", "heldout", "draw")).values
    said, (main, *_) = report.sentences[0], report.evaluations[0].among
    assert said.startswith("lora-1 is worse than fera-0: validation error ")
    assert f"{(errors[2] / errors[1] - 1) * 100:.1f} % higher" in said
    low, high = ((end - 1) * 100 for end in (main.difference.low, main.difference.high))
    assert f"95 % interval {low:.1f} % to {high:.1f} % higher, corrected p < 0.001, over 20 held-out pictures" in said
    assert "Holm’s correction over" in said


def test_the_verdict_says_whether_adapters_beat_the_base_model(report: Report) -> None:
    base = [c for c in report.evaluations[0].to_base if c.name == "validation_error"]
    claim, support = report.said[1].claim, report.said[1].support
    assert claim.startswith("Against the base model, by validation error: ")
    for c in base:
        assert c.favours is not None
        assert f"{c.a} is {'better' if c.favours == c.a else 'worse'} (" in claim or c.a in claim.split(" are ")[0]
        assert f"{c.a} {moved(c)}, 95 % interval " in support
    assert support.count("over 20 held-out pictures") == 1


def test_the_verdict_claims_only_what_holds_after_correction(report: Report) -> None:
    found = report.evaluations[0].among
    p = np.array([c.p for c in found])
    order, running, corrected = np.argsort(p), 0.0, np.empty(len(p))
    for rank, i in enumerate(order):
        running = max(running, p[i] * (len(p) - rank))
        corrected[i] = min(running, 1.0)
    np.testing.assert_allclose([c.p_corrected for c in found], corrected)
    claimed = report.said[0].claim
    for c in decisive(found):
        assert (c.title in claimed) == bool(corrected[found.index(c)] < 0.05)


def test_errors_at_noise_levels_are_ratios_of_means_and_counted_after_correction(report: Report) -> None:
    (cells,) = report.cells[0]
    data = different()
    order = np.argsort(-data.noise_level.values)
    errors = data.validation_error.mean("draw").values[:, order]  # (adapter, level, heldout)
    p = []
    for level, ratio in enumerate(cells.levels):
        a, b = errors[2, level], errors[1, level]
        assert ratio.value == pytest.approx(a.mean() / b.mean())
        parts = a / a.mean() - b / b.mean() + np.log(a.mean() / b.mean())
        assert ratio.p == pytest.approx(stats.ttest_1samp(parts, 0).pvalue, rel=1e-6, abs=1e-10)
        p.append(ratio.p)
    assert min(r.p_corrected for r in cells.levels) == pytest.approx(min(1, len(p) * min(p)))
    higher = sum(r.holds and r.value > 1 for r in cells.levels)
    values = [r.value for r in cells.levels]
    most = np.sort(data.noise_level.values)[::-1][int(np.argmax(values))]
    assert higher == 4
    assert any(f"higher at all 4 noise levels, most at {most:.2g} (+" in said for said in report.sentences)


def test_a_pair_without_a_difference_is_said_so_with_what_would_have_shown(tmp_path: Path) -> None:
    same = evaluation(strength=(0, 1, 1), prompts=8, seeds=1, unrelated=2, heldout=12, train=4)
    found = reports.build([write_evaluation(tmp_path / "e.zarr", same)])
    main = next(c for c in found.evaluations[0].among if c.name == "validation_error")
    said = found.sentences[0]
    assert said.startswith("No difference was found between lora-1 and fera-0 in any of")
    assert f"with n = 12 held-out pictures you could see differences above {100 * main.resolution:.2g} %" in said
    assert said.count("n = ") == 1


def test_sentences_have_no_scientific_notation() -> None:
    assert [number(v) for v in (290.0, 1.52e-6, 3000.0, -0.5)] == ["290", "0.00000152", "3000", "−0.5"]
    vague = replace(made_up("b", "a", 1.0, "lower", False), resolution=2.9, unit="prompts")
    assert would_show(vague) == "with n = 8 prompts you could see differences above 290 %"


def made_up(a: str, b: str, value: float, better: str, holds: bool, name: str = "validation_error") -> Comparison:
    from spectra.analysis.statistics import Estimate

    found = Estimate(value, value * 0.9, value * 1.1, 8, "t", "ratio")
    return Comparison(name, a, b, found, "ratio", 0.01, 0.01, holds, 0.05, "", better, None, name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "claim"),
    [
        ([made_up("b", "a", 0.9, "lower", True)], "b is better than a: validation_error 10.0 % lower"),
        ([made_up("b", "a", 1.25, "lower", True)], "b is worse than a: validation_error 25 % higher"),
        (
            [made_up("b", "a", 0.9, "lower", True), made_up("b", "a", 0.8, "higher", True, "text_x")],
            "b is better than a in some measures (validation_error 10.0 % lower) and worse in others "
            "(text_x 20 % lower)",
        ),
        ([made_up("b", "a", 0.9, "lower", False)], "No difference was found between b and a in any of 1 measure"),
        (
            [
                made_up("b", "a", 0.9, "lower", False),
                replace(made_up("b", "a", 0.9, "lower", False, "text_x"), resolution=3.0),
            ],
            "No difference was found between b and a in any of 2 measures, in 1 of which hardly any could have shown",
        ),
        ([made_up("b", "a", 0.9, "neutral", True)], "Which of b and a is better was not measured"),
    ],
)
def test_headlines(report: Report, found: list[Comparison], claim: str) -> None:
    assert headline(replace(report.evaluations[0], among=tuple(found)), "b", "a").claim == claim


def test_of_three_adapters_the_best_is_named(tmp_path: Path) -> None:
    data = evaluation(strength=(0, 1, 0.7, 0.3), prompts=3, seeds=1, unrelated=0, heldout=16, train=0,
                      attributes=False, networks=())  # fmt: skip
    found = reports.build([write_evaluation(tmp_path / "e.zarr", data)])
    wins = [c.favours for c in found.evaluations[0].among if c.name == "validation_error"]
    assert wins == ["fera-0", "fera-0", "lora-1"]
    assert found.sentences[0].startswith("fera-0 is the best of 3 adapters by validation error")


def test_of_equal_adapters_none_is_named(tmp_path: Path) -> None:
    data = evaluation(strength=(0, 1, 1, 1), prompts=3, seeds=1, unrelated=0, heldout=16, train=0,
                      attributes=False, networks=())  # fmt: skip
    found = reports.build([write_evaluation(tmp_path / "e.zarr", data)])
    assert found.sentences[0].startswith(
        "Against fera-0, by validation error: no difference found for lora-1 and dora-2"
    )


def test_numbers_for_scripts(report: Report) -> None:
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (found["format"], found["model"], found["arms"], found["base"]) == (2, "mini", [], None)
    (one,) = found["evaluations"]
    assert [adapter["label"] for adapter in one["adapters"]] == ["base", "fera-0", "lora-1"]
    assert {m["name"] for m in one["measures"]} >= {"validation_error", "frechet_world", "drift_pixels"}
    assert np.shape([[cell["value"] for cell in line] for line in one["errors"][0]["bands"]]) == (4, 4)
    assert {q["name"] for q in found["quantities"]} >= {"drift", "memorised", "error_ratio"}


def test_the_page_is_whole(page: str) -> None:
    outline = Outline(page)
    assert not outline.open
    assert len(page.encode()) <= 3_000_000
    sections = [attrs["id"] for _, attrs in outline.every("section") if "id" in attrs]
    wanted = [
        "verdict",
        "errors",
        "measures",
        "spectra",
        "pictures",
        "drift",
        "memory",
        "provenance",
        "reproduce",
        "method",
    ]
    assert sections == wanted
    for learned in ("Learning curves", "Gates", "training run"):
        assert learned not in page


def test_copies_are_shown_beside_the_training_pictures(tmp_path: Path) -> None:
    data = evaluation(adapters=1, prompts=6, seeds=1, unrelated=0, heldout=20, train=6, copies=3)
    found = read_evaluation(write_evaluation(tmp_path / "e.zarr", data))
    section = memory_section(found, "")
    assert section is not None
    assert section.said[0].claim.endswith(words_of(found.measured("memorised_world", "fera-0")))
    shown = section.extra["neighbours"]
    assert {one.prompt for one in shown[:3]} == set(data.prompt.values[:3].tolist())
    assert [one.caption for one in shown[:3]] == sorted(
        data.reference_caption.values[20:23].tolist(), key=[one.caption for one in shown[:3]].index
    )


def words_of(measure: Measure | None) -> str:
    assert measure is not None
    return f"fera-0 {measure.value.value:.3g} ({measure.value.low:.3g} to {measure.value.high:.3g})"


def test_the_nearest_training_pictures_are_on_the_page(page: str) -> None:
    part = page[page.index('id="memory"') :]
    assert "nearest training picture" in part
    assert len(re.findall("<img", part)) == 12


def test_how_to_reproduce_can_be_copied(page: str) -> None:
    part = page[page.index('id="reproduce"') :]
    assert "pip install" in part
    assert "diffusers==0.42.1" in part
    assert "adapt evaluate runs/fera-0 --model mini --out EVAL.zarr" in part
    assert re.search(r"adapt report \S*two\.zarr --out report\.html", part)


def test_what_networks_measured_with_is_pinned(page: str) -> None:
    assert "none: pictures are 64 x 64" in page
    assert "5d41" * 4 in page


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    stored = write_evaluation(tmp_path / "e.zarr", evaluation(
        adapters=1, prompts=3, seeds=1, unrelated=0, heldout=4, train=0, attributes=False, networks=(),
    ))  # fmt: skip
    assert reports.build([stored]).to_html() == reports.build([stored]).to_html()


def test_hostile_labels_prompts_and_captions_are_text(tmp_path: Path) -> None:
    data = evaluation(adapters=2, prompts=4, seeds=1, unrelated=2, heldout=6, train=4, hostile=True)
    protocol = json.loads(data.attrs["protocol"])
    protocol |= {"model": HOSTILE[0], "command": ["adapt", HOSTILE[1]], "versions": {HOSTILE[3]: HOSTILE[4]}}
    protocol["networks"][0] |= {"what": HOSTILE[0], "source": HOSTILE[3]}
    stored = write_evaluation(tmp_path / "e.zarr", data.assign_attrs(protocol=json.dumps(protocol)))
    page = reports.build([stored]).to_html()
    outline = Outline(page)
    assert not outline.open
    assert len(outline.every("script")) == 1
    assert [attrs for _, attrs in outline.every("style") if attrs.get("type") != "text/css"] == [{}]
    assert "<b>bold" not in page
    assert all(not name.startswith("on") for _, attrs in outline.found for name in attrs)
    assert all(str(attrs.get("src", "data:")).startswith("data:") for _, attrs in outline.found)
    shown = "".join(outline.text)
    assert HOSTILE[0] in shown
    assert "{{ 7 * 7 }}" in shown


@pytest.mark.slow
def test_six_adapters_fit_into_three_megabytes(tmp_path: Path) -> None:
    data = evaluation(adapters=6, prompts=16, seeds=2, unrelated=6, heldout=16, train=16)
    noise = np.random.default_rng(0).integers(0, 256, (*data.image.shape[:2], 256, 256, 3), dtype=np.uint8)
    large = data.drop_vars(["image", *(name for name in data if str(name).startswith("reference"))])
    large = large.assign(image=(data.image.dims, noise))
    report = reports.build([write_evaluation(tmp_path / "e.zarr", large)])
    assert len(report.evaluations[0].pairs) == 5
    assert len(report.to_html().encode()) <= 3_000_000
