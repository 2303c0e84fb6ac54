"""What can be read on a figure, and where it stands."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def texts(figure: Figure) -> list[Text]:
    """All words on the page: tick labels outside the limits of their axis exist, but are not drawn."""
    found = list(figure.texts)
    for ax in [*figure.axes, *(inset for one in figure.axes for inset in one.child_axes)]:
        found += [*ax.texts, ax.xaxis.label, ax.yaxis.label, ax._left_title]
        for axis, place in ((ax.xaxis, 0), (ax.yaxis, 1)):
            low, high = sorted(axis.get_view_interval())
            found += [t for t in axis.get_ticklabels() if low <= t.get_position()[place] <= high]
    return [t for t in found if t.get_visible() and t.get_text().strip()]


def words(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in texts(figure))


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts(figure)]


def refuse_collisions(figure: Figure) -> None:
    """Fail if a word leaves the page or covers another."""
    page, found = figure.bbox, boxes(figure)
    for word, box in found:
        assert page.x0 <= box.x0 < box.x1 <= page.x1, word
        assert page.y0 <= box.y0 < box.y1 <= page.y1, word
    for (word, box), (other, beside) in combinations(found, 2):
        shared = Bbox.intersection(box, beside)
        assert shared is None or shared.width * shared.height < 4, (word, other)
