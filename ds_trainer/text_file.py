"""Reads text files of unknown origin: nothing endless, nothing huge, nothing that is not text."""

import os
import stat
from pathlib import Path

MAX_TEXT_BYTES = 2**20
"""Settings are a page or two; a file of another kind, given by mistake, must not keep the parser busy for minutes."""


_IN_PACKAGE = Path(__file__).parent / "ds_configs"
CONFIGS_DIR = (_IN_PACKAGE if _IN_PACKAGE.is_dir() else Path(__file__).parents[1] / "ds_configs").resolve()
"""Engine configs, recipes and layouts, which an installed package has within; a checkout has a link to them there,
unless it was unpacked by what knows no links."""


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The UTF-8 text in a file, every end of a line as "\\n".

    Raises:
        OSError: the file is missing or may not be read.
        ValueError: it is no regular file, is larger than `max_bytes`, or is not UTF-8.
    """
    check_regular(path)
    with open(path, "rb") as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes} bytes")
    return raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def shipped(path: Path) -> Path:
    """The file or folder that a setting names: where there is none, `ds_configs/...` is what comes with ds_trainer.

    So the commands of the README work in any folder, for those who installed the package.
    """
    is_own = path.parts[:1] == ("ds_configs",) and ".." not in path.parts
    own = CONFIGS_DIR.joinpath(*path.parts[1:])
    return own if is_own and not path.exists() and own.exists() else path


def check_regular(path: Path) -> None:
    """Refuse what is no regular file before it is opened: opening a pipe waits for a writer, a device may never end.

    Raises:
        OSError: the file is missing or may not be looked at.
        ValueError: it is a folder, a pipe or a device, or the path holds a null character.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is no regular file")


def is_plain(text: str) -> bool:
    """Whether `text` can stand in one line of a log and in a path: no control characters, no half of a surrogate."""
    return not any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in text)
