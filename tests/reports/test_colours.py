"""The colours of the page: contrast in both schemes, and arms that stay apart for colour-blind readers."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from reports.drawing import assets
from reports.figures import BASE_DASH, DASHES, MARKERS, marker

ARMS = 8
APART = 0.08
"""Least distance in OKLab; neighbours of the former palette were 0.008 apart where green cones are missing."""
# Machado, Oliveira & Fernandes, A physiologically-based model for simulation of color vision deficiency (2009).
SEEN = {
    "all cones": np.eye(3),
    "no red cones": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ]),
    "no green cones": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ]),
    "no blue cones": np.array([
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900],
    ]),
}  # fmt: skip
# Ottosson, A perceptual color space for image processing (2020).
TO_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
TO_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip


def schemes() -> dict[str, dict[str, str]]:
    """Variables of the light scheme, and of the dark one where it changes them."""
    light, dark = re.findall(r":root\{(.*?)\}", str(assets()["style"]), flags=re.S)[:2]
    found = {name: dict(re.findall(r"--([\w-]+):(#\w+)", text)) for name, text in (("light", light), ("dark", dark))}
    return {"light": found["light"], "dark": {**found["light"], **found["dark"]}}


def linear(colour: str) -> np.ndarray:
    """Linear RGB of `#rgb` or `#rrggbb`."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    rgb = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """Contrast ratio of WCAG 2.2."""
    bright, dim = sorted((float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """OKLab of a colour as a reader sees it."""
    return np.asarray(TO_LAB @ np.cbrt(TO_CONES @ np.clip(seen @ linear(colour), 0, 1)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_lines_stand_out_from_the_paper(scheme: str) -> None:
    colours = schemes()[scheme]
    assert contrast(colours["ink"], colours["paper"]) > 7
    assert contrast(colours["muted"], colours["paper"]) > 4.5
    assert contrast(colours["care"], colours["care-bg"]) > 4.5
    assert contrast(colours["ink"], colours["care-bg"]) > 7
    for background in ("paper", "card"):
        assert contrast(colours["link"], colours[background]) > 4.5
        assert min(contrast(colours[f"arm-{i}"], colours[background]) for i in range(ARMS)) >= 3
    assert min(contrast(colours["ink"], colours[f"expert-{i}"]) for i in range(6)) >= 4.5


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_eight_arms_can_be_told_apart_by_everybody(scheme: str, seen: str) -> None:
    points = [lab(schemes()[scheme][f"arm-{i}"], SEEN[seen]) for i in range(ARMS)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(points, 2)) > APART


def test_no_arm_is_dotted_as_the_base_model_is() -> None:
    assert max(BASE_DASH[1][::2]) <= 1
    assert all(max(found[1][::2]) >= 2 for found in DASHES if found != "solid")
    assert marker(-1) not in MARKERS


def test_no_two_arms_share_dashes_or_markers() -> None:
    assert len(set(DASHES)) == len(set(MARKERS)) == ARMS
