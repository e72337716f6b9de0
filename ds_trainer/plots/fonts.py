"""Fonts for names in any script: Matplotlib's own has Latin, Greek, Cyrillic, Arabic and Hebrew letters, and no
Chinese, Japanese, Korean, Thai or Indian ones."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font

from ds_trainer.progress import log

_BOXES = "Last Resort"
"""Has a box for each letter; Matplotlib takes it by itself where nothing else is left."""
_MOST_SHOWN = 20


@contextmanager
def fonts_for(texts: Iterable[str]) -> Iterator[None]:
    """Within it, figures are made and drawn by whatever installed fonts it takes to write `texts`.

    Letters that no font has are told, once for a call, and drawn as boxes.
    """
    written = {letter for text in texts for letter in text if letter.isprintable()}
    missing = written - _letters_of(findfont(FontProperties()))
    families = []
    while missing and (fonts := _installed()):
        family, path = max(fonts, key=lambda font: len(missing & _letters_of(font[1])))
        if missing.isdisjoint(_letters_of(path)):
            break
        families.append(family)
        missing -= _letters_of(path)
    if missing:
        letters = "".join(sorted(missing)[:_MOST_SHOWN])
        log.info(
            f"note: no font here has {letters}: plots (.png) show boxes; install one that does, such as those of "
            "Debian's fonts-noto-core and fonts-noto-cjk"
        )
    all_families = [*matplotlib.rcParams["font.family"], *families]
    with matplotlib.rc_context({"font.family": all_families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # told above, in a line
        yield


@cache
def _installed() -> list[tuple[str, str]]:
    """(family, file) of upright fonts of usual weight, those without serifs first."""
    plain = {
        (font.name, font.fname)
        for font in fontManager.ttflist
        if font.style == "normal" and font.weight == 400 and not font.name.startswith(_BOXES)
    }
    return sorted(plain, key=lambda font: ("Sans" not in font[0], font))


@cache
def _letters_of(path: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(path).get_charmap()))
