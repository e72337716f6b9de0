"""Whether something is at a path, or an error where that may not be looked at.

`Path.exists()` and its like raise it up to Python 3.13, and say from 3.14 on that nothing is there.
"""

import errno
import os
import stat
from pathlib import Path

_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def exists(path: Path) -> bool:
    """Whether something is there, and no link to nothing.

    Raises:
        OSError: it may not be looked at.
    """
    return _mode(path) != 0


def is_file(path: Path) -> bool:
    """Whether it is a regular file, or a link to one.

    Raises:
        OSError: it may not be looked at.
    """
    return stat.S_ISREG(_mode(path))


def is_dir(path: Path) -> bool:
    """Whether it is a folder, or a link to one.

    Raises:
        OSError: it may not be looked at.
    """
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    try:
        return os.stat(path).st_mode
    except ValueError:  # a null character
        return 0
    except OSError as error:
        if error.errno in _NOTHING:
            return 0
        raise
