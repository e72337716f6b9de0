"""Reads DeepSpeed's hostfile more strictly than DeepSpeed does, which takes `slots=4x` for 4 and stops at one problem.

What is accepted here means the same to DeepSpeed 0.19.8 (`launcher/runner.py`): a line for each host,

    worker-1 slots=4    # comments run to the end of the line

and its ranks are numbered in the order of the lines.
"""

import re
from pathlib import Path

from ds_trainer.errors import SettingsError
from ds_trainer.problems import reason_of, shortened, shown
from ds_trainer.text_file import read_text

MAX_SLOTS = 1024
"""DeepSpeed starts a process for each slot: more is a slip of the key."""

# A leading hyphen would be an option of ssh; other characters are the shell's, through which DeepSpeed calls it.
_HOST = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_SLOTS = re.compile(r"slots=(.*)")
_EXPECTED = "expected a line such as 'worker-1 slots=4'"


def read_hostfile(path: Path) -> dict[str, int]:
    """How many processes each host is to run, in the order of the file.

    Raises:
        SettingsError: with everything in the file that is no host, not only the first; or it cannot be read.
    """
    try:
        lines = read_text(path).split("\n")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path}: cannot be read ({reason_of(error)}), expected a text file with a line for each host such as "
            "'worker-1 slots=4'; give the path of one"
        ) from error
    slots_of: dict[str, int] = {}
    line_of: dict[str, int] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        words = _words(line)
        if not words:
            continue
        problem = _problem(words)
        if problem is None and words[0] in line_of:
            problem = f"found {words[0]} in line {line_of[words[0]]} already, expected each host once; keep one line"
        if problem is not None:
            problems.append(f"{path}:{number}: {problem}")
            continue
        line_of[words[0]] = number
        slots_of[words[0]] = int(words[1].removeprefix("slots="))
    if not slots_of and not problems:
        problems.append(f"{path}: found no hosts, {_EXPECTED} for each; add them")
    if problems:
        raise SettingsError(shortened(problems))
    return slots_of


def _words(line: str) -> list[str]:
    """The words of a line before its comment; a `#` within a word is part of the word, as it is to DeepSpeed."""
    words = line.split()
    comment = next((place for place, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:comment]


def _problem(words: list[str]) -> str | None:
    """What is wrong with the words of a line, which are not none."""
    host, *rest = words
    if not _HOST.fullmatch(host):
        return f"found the host {shown(host)}, expected letters, digits and .-_: alone; write the name that ssh knows"
    if not rest:
        return f"found {shown(host)} alone, {_EXPECTED}; add its number of processes"
    match = _SLOTS.fullmatch(rest[0])
    if match is None:
        return f"found {shown(rest[0])} behind the host, {_EXPECTED}; write slots=N without spaces"
    # The digits of other scripts are digits to DeepSpeed as well, but hardly meant.
    if not re.fullmatch(r"[0-9]{1,9}", match[1]) or not 1 <= int(match[1]) <= MAX_SLOTS:
        return f"found slots={shown(match[1])}, expected a whole number from 1 to {MAX_SLOTS}; mend it"
    if len(rest) > 1:
        return f"found {shown(' '.join(rest[1:]))} behind slots, {_EXPECTED}; remove it, or write # before a comment"
    return None
