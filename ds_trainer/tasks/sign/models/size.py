"""The size of a model in one word: `s_4_6` is head size small (32), 4 heads, 6 layers."""

import re
from typing import NamedTuple

_HEAD_SIZES = {"t": 16, "s": 32, "m": 64, "l": 128}
_FORM = re.compile(r"([tsml])_([1-9]\d?)_([1-9]\d?)")


class ModelSize(NamedTuple):
    """Width is head size times heads."""

    head_size: int
    num_heads: int
    num_layers: int

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return self.head_size * self.num_heads

    @classmethod
    def parse(cls, text: str) -> "ModelSize":
        """Read the form HEAD_HEADS_LAYERS.

        Raises:
            ValueError: `text` has another form.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(
                "expected HEAD_HEADS_LAYERS such as s_4_6: head size t, s, m or l (16, 32, 64, 128), heads, layers"
            )
        return cls(_HEAD_SIZES[match[1]], int(match[2]), int(match[3]))
