"""The sections of an evaluation that show pictures: what was asked for, drift, and what may be copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reports import metrics, panels, pictures
from reports.evaluated import BASE, Evaluation
from reports.evaluation_marks import keys, point
from reports.evaluation_tables import shown_as
from reports.evaluation_words import about_drift, about_memory, drift_name, weight
from reports.metrics import Neighbour
from reports.metrics.memorised import threshold
from reports.metrics.opened import Opened
from reports.metrics.vectors import nearest
from reports.pictures import Pixels
from reports.sections import Mark, Panel, Room, Said, Section

MOST_NEIGHBOURS = 6
HELDOUT = "held-out pictures"
SIDES = {"lower": "lower is better", "higher": "higher is better"}
START = "The base model stands at no drift; 95 % intervals in both directions."
COPIES = (
    "The closest pairs of a generated and a training picture, by one minus the cosine of their features. A picture "
    "counts as close where it is nearer to a training picture than 95 % of the held-out pictures are."
)
TICKS = "A tick per picture; the marker is the median. Left of the dashed line a picture counts as close."


def image_section(found: Evaluation, prefix: str, part: str, room: Room) -> Section | None:
    """The pictures of a part, all models side by side from the same noise; None where there are none."""
    places = found.part(part)
    if not len(places):
        return None
    chosen = by_prompt(found, places)
    columns = [
        (shown_as(x), found.data.image.values[found.labels.index(x)][chosen]) for x in found.shown
    ]  # fmt: skip
    prompts = [str(found.data.prompt.values[i]) for i in chosen]
    seeds = [int(found.data.seed.values[i]) for i in chosen]
    rows = pictures.rows(columns, prompts, seeds, room.rows, room.size)
    some = f"The first {len(rows)} of {len(places)} pictures, prompt by prompt, chosen by position alone. "
    note = f"{some if len(rows) < len(places) else ''}Within a row every model starts from the same noise."
    asked = part == "asked"
    return Section(
        f"{prefix}{'pictures' if asked else 'drift'}", "Pictures" if asked else "Drift from the base model",
        notes=(note,), kind="pictures", extra={"rows": rows}, nav="Pictures" if asked else "Drift",
    )  # fmt: skip


def by_prompt(found: Evaluation, places: np.ndarray) -> list[int]:
    """Places in an order in which every prompt comes once before any comes again."""
    seen: dict[str, int] = {}
    keyed = []
    for i in places:
        prompt = str(found.data.prompt.values[i])
        seen[prompt] = seen.get(prompt, -1) + 1
        keyed.append((seen[prompt], int(i)))
    return [i for _, i in sorted(keyed)]


def drift_section(found: Evaluation, prefix: str, room: Room) -> Section | None:
    """How far unrelated prompts are moved: numbers, the trade against what was learned, and pictures."""
    grid = image_section(found, prefix, "unrelated", Room(max(room.rows // 2, 1), room.size))
    names = [n for n in dict.fromkeys(m.name for m in found.measures) if n.startswith("drift")]
    if grid is None or not names:
        return grid
    drawn = gain_panel(found, prefix)
    for i, name in enumerate(names):
        of = [m for m in found.measures if m.name == name and m.adapter in found.shown]
        rows = [m for m in of if m.adapter != BASE or m.better == "higher"]
        drawn.append(
            panels.forest(f"{prefix}drift-{i}", rows[0].title, [point(m, found) for m in rows], rows[0].better)
        )
    said: list[Said] = [one for one in (about_drift(found),) if one is not None]
    told = "How far each adapter moves the pictures of prompts that have nothing to do with what it was trained on."
    return Section(
        grid.id, grid.title, tuple(said), (told, *grid.notes), keys(found), tuple(drawn), kind="pictures", nav="Drift",
        extra=grid.extra,
    )  # fmt: skip


def gain_panel(found: Evaluation, prefix: str) -> list[Panel]:
    """What was learned against what was moved, a point per model; nothing where one of the two was not measured."""
    name = drift_name(found)
    judged = [m for m in found.measures if m.better in SIDES and weight(m.name) < weight("diversity")]
    if name is None or not judged:
        return []
    gain = min(judged, key=lambda m: weight(m.name))
    pairs = [(found.measured(name, label), found.measured(gain.name, label)) for label in found.distinct]
    measured = [(moved, won) for moved, won in pairs if moved is not None and won is not None]
    points = [(*point(moved, found), point(won, found)[2]) for moved, won in measured]
    if (start := found.measured(gain.name, BASE)) is not None:
        points.insert(0, (shown_as(BASE), found.styles[BASE], Mark(0.0), point(start, found)[2]))
    axes = f"{measured[0][0].title} (left is better)", f"{gain.title} ({SIDES[gain.better]})"
    return [panels.tradeoff(f"{prefix}gain", "What is gained and what is moved", *axes, points, START)]


def memory_section(found: Evaluation, prefix: str) -> Section | None:
    """Generated pictures beside the nearest training picture; None where no training pictures were given."""
    networks = list(dict.fromkeys(m.network for m in found.measures if m.name.startswith("memorised") and m.network))
    said = about_memory(found)
    if not networks or said is None:
        return None
    near = {label: metrics.neighbours(found.data, networks[0], label) for label in found.distinct}
    rows = sorted(((label, n) for label in near for n in near[label]), key=lambda row: (row[1].distance, *row[:1]))
    return Section(
        f"{prefix}memory", "Is anything copied from the training pictures?", (said,), (COPIES,),
        (panels.style_key(HELDOUT, -1), *keys(found)[1:]), (distance_panel(found, networks[0], near, prefix),),
        kind="neighbours", nav="Memorisation",
        extra={"neighbours": pictures.neighbours([beside(found, *row) for row in rows], most=MOST_NEIGHBOURS)},
    )  # fmt: skip


def beside(found: Evaluation, label: str, n: Neighbour) -> tuple[str, str, Pixels, Pixels, str, float]:
    """A generated picture and the training picture nearest to it, with their words."""
    data = found.data
    made = data.image.values[found.labels.index(label)][n.sample]
    words = str(data.prompt.values[n.sample]), str(data.reference_caption.values[n.reference])
    return label, words[0], made, data.reference_image.values[n.reference], words[1], n.distance


def distance_panel(found: Evaluation, network: str, near: Mapping[str, Sequence[Neighbour]], prefix: str) -> Panel:
    """Distances to the nearest training picture, of held-out pictures too, and the one below which a picture counts."""
    opened = Opened(found.data)
    held, train = (opened.reference_features(network, opened.part(part)) for part in ("heldout", "train"))
    rows = [(HELDOUT, -1, nearest(held, train).distance)]
    rows += [(label, found.styles[label], np.array([n.distance for n in of])) for label, of in near.items()]
    title, limit = "Distance to the nearest training picture", threshold(held, train)
    return panels.nearest(f"{prefix}nearest", title, rows, limit, note=TICKS)
