"""Errors that a user can mend: each message says what was found, what was expected and what to do."""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

EXIT_USER_ERROR = 2
"""The status of a command that ends with an error that the user can mend."""

_ROOM = 2**20

# What a terminal acts on: control characters, those of ISO 6429 above 127 too, and those that turn the order of a line.
# Half a surrogate stands for a byte of a file name that is not UTF-8.
_ACTED_ON = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """`text` with escapes, as JSON has them, in place of what a terminal acts on; lines and tabs stay.

    Names of files and clips come from elsewhere, and may hold what clears the screen or says something else.
    """
    return _ACTED_ON.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


class UserError(Exception):
    """Base of all errors that end a command with status 2 and its message instead of a traceback.

    Args:
        problems: one line each; all that were found, not only the first.
    """

    def __init__(self, problems: str | Sequence[str]):
        lines = [problems] if isinstance(problems, str) else problems
        self.problems = [harmless(line).replace("\n", "\\u000a") for line in lines]
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type["UserError"], tuple[list[str]]]:
        return type(self), (self.problems,)


class MeetingError(UserError):
    """One rank cannot join the others: it tells so itself, whichever it is."""


class SettingsError(UserError):
    """A run setting or a key of the engine config is unknown, of the wrong type or impossible."""


class DataError(UserError):
    """A data file is missing, damaged, or holds values that cannot be trained on."""


class TaskError(UserError):
    """A task gives what cannot be trained: its model, or what its objective makes of an example."""


class CheckpointError(UserError):
    """A checkpoint or resume point is missing, damaged, or does not fit this run."""


class MemoryLimitError(UserError):
    """The memory of the device or the host does not suffice."""


class WriteError(UserError):
    """A file could not be written: the disk is full, read-only or gone."""

    @classmethod
    def of(cls, path: Path, error: Exception) -> "WriteError":
        """The error for what `error` says about writing `path`."""
        reason = getattr(error, "strerror", None)
        if reason is None:  # torch.save says RuntimeError, and not why, where the file said OSError
            is_full = path.parent.exists() and shutil.disk_usage(path.parent).free < _ROOM
            reason = os.strerror(errno.ENOSPC) if is_full else " ".join(str(error).split())[:120]
        return cls(f"{path}: cannot be written ({reason}); make room there, or choose another place")


class NonFiniteLossError(UserError):
    """Training produced NaN or infinity where it cannot go on."""


@contextmanager
def looking_at(path: Path, kind: type[UserError]) -> Iterator[None]:
    """Within it, an OSError about `path` raises an error of this `kind`: no right to read it, or a name too long."""
    try:
        yield
    except OSError as error:
        raise kind(
            f"{path}: cannot be looked at ({error.strerror}), expected what you may read; correct the path or the "
            "link, or ask for the right to read it"
        ) from error
