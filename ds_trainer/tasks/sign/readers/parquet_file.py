"""A parquet file of the Google contest of isolated signs (asl-signs): a row for each keypoint of each frame.

Columns `frame`, `type`, `landmark_index`, `x`, `y`, `z`; a keypoint that was not found has NaN in the last three.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.readers.npz_file import reading
from ds_trainer.text_file import check_regular

VERSION = 1

_COLUMNS = ("frame", "type", "landmark_index", "x", "y", "z")
_NUMBERS = tuple(name for name in _COLUMNS if name != "type")
_MAX_ROWS = 2**25
"""Three coordinates of so many keypoints fill 800 MB: a clip has fewer, and a damaged file may promise any number."""


def read_parquet(file: Path) -> NDArray[np.float32]:
    """The frames [T, K, 3] of a clip, 0 where a keypoint is missing.

    Raises:
        DataError: the file is damaged, has other columns, or not the same keypoints in each frame; or pyarrow is not
            installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{file}: .parquet files need pyarrow; pip install ds-trainer[parquet]") from error
    with reading(file, ".parquet"):
        check_regular(file)
        # A name that stands once in the file is kept once: a million rows of it would fill memory.
        as_dictionary = ["type"] if "type" in parquet.read_schema(file).names else []
        with parquet.ParquetFile(file, read_dictionary=as_dictionary) as opened:
            missing = [name for name in _COLUMNS if name not in opened.schema_arrow.names]
            if missing:
                found = ", ".join(opened.schema_arrow.names[:20]) or "nothing"
                raise DataError(f"{file}: found the columns {found}, expected also {', '.join(missing)}; add them")
            if not 0 < opened.metadata.num_rows <= _MAX_ROWS:
                raise ValueError(f"it has {opened.metadata.num_rows} rows")
            texts = [name for name in _NUMBERS if not _is_number(opened.schema_arrow.field(name).type)]
            if texts:
                raise DataError(f"{file}: found no numbers in {', '.join(texts)}, expected them; extract it again")
            table = opened.read(list(_COLUMNS), use_threads=False)
        frame, index = (table.column(name).to_numpy() for name in ("frame", "landmark_index"))
        part = table.column("type").combine_chunks().dictionary_encode().indices.to_numpy()
        num_frames = 1 + int(np.count_nonzero(frame[1:] != frame[:-1]))
        if len(frame) % num_frames or not all(_is_alike(column, num_frames) for column in (part, index)):
            raise DataError(f"{file}: found frames of different keypoints, expected the same in each; extract it again")
        coordinates = np.stack([table.column(name).to_numpy().astype(np.float32) for name in "xyz"], axis=-1)
    frames_TKC = coordinates.reshape(num_frames, -1, 3)
    return np.where(np.isnan(frames_TKC).all(-1, keepdims=True), np.float32(0), frames_TKC)


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind))


def _is_alike(column: NDArray[Any], num_frames: int) -> bool:
    """Whether each frame has the same values in the same order."""
    values_TK = column.reshape(num_frames, -1)
    return bool((values_TK == values_TK[0]).all())
