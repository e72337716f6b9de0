"""Names in scripts that Matplotlib's own font lacks are drawn by fonts that are installed, or told in one line."""

import logging
from pathlib import Path

import matplotlib
import pytest
import torch
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font

from ds_trainer.classification import measure
from ds_trainer.diagnostics import visualize_metrics
from ds_trainer.plots import fonts
from ds_trainer.plots.fonts import fonts_for

THAI = "สวัสดี"


def has_letters(text: str) -> bool:
    files = {font.fname for font in fontManager.ttflist if not font.name.startswith("Last Resort")}
    return any(set(map(ord, text)) <= FT2Font(file).get_charmap().keys() for file in files)


def draw(out_dir: Path, names: list[str]) -> None:
    targets = torch.arange(3)
    visualize_metrics(out_dir, [], measure(torch.eye(3).flip(0), targets), names, "a run")


@pytest.mark.skipif(not has_letters(THAI), reason="needs a font with Thai letters, such as of fonts-noto-core")
def test_names_are_drawn_by_a_font_that_has_their_letters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Matplotlib's warning, two lines for each letter, would be an error here."""
    caplog.set_level(logging.INFO)
    before = list(matplotlib.rcParams["font.family"])
    draw(tmp_path, [THAI, "hello", "شمس"])
    with fonts_for([THAI]):
        first, *others = matplotlib.rcParams["font.family"]
        letters = FT2Font(findfont(FontProperties(family=others))).get_charmap().keys()
    assert [first] == before == matplotlib.rcParams["font.family"]
    assert set(map(ord, THAI)) <= letters
    assert not caplog.messages


def test_letters_that_no_font_has_are_told_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(fonts, "_installed", list)
    draw(tmp_path, ["谢谢", "hello", "再见"])
    (told,) = caplog.messages
    assert told.startswith("note: no font here has 再见谢: plots (.png) show boxes; install one")
