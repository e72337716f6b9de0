"""Plots as they stand in a page: drawn by its renderer at any size, in the colours of the page."""

import io
import re

from markupsafe import Markup
from matplotlib.figure import Figure

from ds_trainer.plots.style import GREY, INK, PALE

_COLOUR_OF = {INK.lower(): "var(--ink)", GREY.lower(): "var(--grey)", PALE.lower(): "var(--pale)"}
_NEUTRAL = re.compile("|".join(_COLOUR_OF))


def svg_of(figure: Figure, told: str) -> Markup:
    """`figure` as SVG to be written into a page, without a background; neutral colours are the page's.

    Args:
        told: what it shows, for those who do not see it.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = _NEUTRAL.sub(lambda found: _COLOUR_OF[found.group()], svg)
    return Markup(
        re.sub(r'width="[^"]*" height="[^"]*"', Markup('role="img" aria-label="{}"').format(told), svg, count=1)
    )
