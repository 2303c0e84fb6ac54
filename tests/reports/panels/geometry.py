"""Where words, lines and marks of a figure are, read from its SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
from PIL import ImageFont

from reports.sections import Panel

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
FULL_SQUARES = 0x2E80
"""Letters from here on are as wide as high."""
HREF = "{http://www.w3.org/1999/xlink}href"


@cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """The face that figures are measured with; a browser's own is narrower."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size * 10)


def elements(found: Panel, kind: str) -> list[ET.Element]:
    """All elements of a kind that are drawn, in order; none that are only defined."""
    root = ET.fromstring(found.svg)
    defined = {id(one) for defs in root.iter() if defs.tag.endswith("defs") for one in defs.iter()}
    return [one for one in root.iter() if one.tag.endswith(f"}}{kind}") and id(one) not in defined]


def place(text: ET.Element) -> tuple[float, float]:
    """Where words are put; a line of several is moved there."""
    x, y = re.findall(r"-?[\d.]+", str(text.get("transform"))) or (str(text.get("x")), str(text.get("y")))
    return float(x), float(y)


def word_box(text: ET.Element) -> Box:
    """The box of words on a level line: from the height of a capital to the foot of a small letter."""
    style = str(text.get("style"))
    size = float(re.findall(r"font-size: ([\d.]+)px", style)[0])
    wide = sum(size if ord(c) > FULL_SQUARES else font(size).getlength(c) / 10 for c in "".join(text.itertext()))
    x, y = place(text)
    (anchor,) = re.findall(r"text-anchor: (\w+)", style) or ["start"]
    left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
    return left, y - 0.75 * size, left + wide, y + 0.25 * size


def words(found: Panel) -> list[tuple[str, Box]]:
    """All words of a figure that stand level, with their boxes."""
    level = [one for one in elements(found, "text") if "rotate" not in str(one.get("transform"))]
    return [("".join(one.itertext()), word_box(one)) for one in level]


def path_box(path: ET.Element, x: float = 0.0, y: float = 0.0) -> Box:
    """The box of a path, at (x, y) where it is a marker."""
    numbers = np.array(re.findall(r"-?\d+(?:\.\d+)?", str(path.get("d"))), np.float64).reshape(-1, 2)
    (left, top), (right, bottom) = numbers.min(axis=0), numbers.max(axis=0)
    return float(x + left), float(y + top), float(x + right), float(y + bottom)


def lines(found: Panel) -> list[tuple[str, Box]]:
    """All stroked lines and their colours, whiskers and axes among them, as far as they are seen."""
    drawn = [one for one in elements(found, "path") if one.get("d")]  # what lies wholly outside of the axes is empty
    stroked = [one for one in drawn if "stroke:" in str(one.get("style"))]
    return [(re.findall(r"stroke: ([^;]+)", str(one.get("style")))[0], seen(found, one)) for one in stroked]


def seen(found: Panel, path: ET.Element) -> Box:
    """The box of a path within what it is clipped to."""
    box = path_box(path)
    if path.get("clip-path") is None:
        return box
    frame = ET.fromstring(found.svg).find(".//{*}clipPath/{*}rect")
    assert frame is not None
    x, y, w, h = (float(str(frame.get(name))) for name in ("x", "y", "width", "height"))
    return max(box[0], x), max(box[1], y), min(box[2], x + w), min(box[3], y + h)


def markers(found: Panel) -> list[Box]:
    """All markers and the marks of ticks."""
    shapes = {one.get("id"): one for one in ET.fromstring(found.svg).iter() if one.tag.endswith("path")}
    return [
        path_box(shapes[str(one.get(HREF))[1:]], float(str(one.get("x"))), float(str(one.get("y"))))
        for one in elements(found, "use")
    ]


def meet(a: Box, b: Box) -> bool:
    """True where two boxes have a point in common."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def covered(found: Panel) -> list[str]:
    """Words that a line, a mark or other words run through."""
    said, drawn = words(found), [box for _, box in lines(found)] + markers(found)
    crossed = [text for text, box in said if any(meet(box, other) for other in drawn)]
    return crossed + [f"{a[0]} on {b[0]}" for a, b in combinations(said, 2) if meet(a[1], b[1])]
