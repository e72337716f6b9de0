"""The names of signs that a user gives for data that has none."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ds_trainer.errors import DataError
from ds_trainer.problems import listed, reason_of, shown
from ds_trainer.progress import log
from ds_trainer.tasks.sign.clips import ClipSource, plain_name, repeated
from ds_trainer.text_file import is_plain, read_text

_MAX_BYTES = 2**24
_ENGLISH, _ARABIC = "EN_WORDS", "AR_WORDS"


def load_labels(path: Path) -> list[str]:
    """The names of sign 1, 2, ... in a labels file: text with one name a line, or the KArSL labels (JSON with AR_WORDS
    and EN_WORDS, of which the English are taken).

    Raises:
        DataError: the file cannot be read, or does not hold a name for each sign in a row.
    """
    try:
        text = read_text(path, _MAX_BYTES).removeprefix("\ufeff")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({reason_of(error)}); give --labels the path of a text file in UTF-8"
        ) from error
    names = _from_json(path, text) if text.lstrip().startswith("{") else _from_lines(text)
    if not names:
        raise DataError(f"{path}: found no names, expected one a line; write the names of the signs in their order")
    empty = [number for number, name in enumerate(names, start=1) if not name]
    if empty:
        raise DataError(f"{path}: found no name for sign {empty[0]}, expected one for each; fill in the empty line")
    strange = [name for name in names if not is_plain(name)]
    if strange:
        raise DataError(f"{path}: found {shown(strange[0])}, expected names without control characters; mend it")
    twice = repeated(names)
    if twice is not None:
        raise DataError(f"{path}: {twice}")
    return names


def named(source: ClipSource, labels: Path | None) -> ClipSource:
    """A source whose signs are called as the labels file says.

    Raises:
        DataError: the names are not those of its signs, as far as can be seen.
    """
    if labels is None:
        return source
    names, own = load_labels(labels), [plain_name(name) for name in source.sign_names]
    if len(names) < source.num_signs or (own and len(names) != len(own)):
        expected = f"{len(own)}" if own else f"at least {source.num_signs}"
        raise DataError(
            f"{labels}: found {len(names)} names, expected {expected}, one for each sign of {source.name}; write them "
            "in the order of the signs"
        )
    renamed = [(old, new) for old, new in zip(own, names, strict=False) if old != new]
    swapped = next(((old, new) for old, new in renamed if new in own), None)
    if swapped is not None:
        old, new = map(shown, swapped)
        raise DataError(
            f"{labels}: found {new} for the sign that {source.name} calls {old}, and it has a sign {new}, too; "
            "expected the names in the order of its signs: sort them so, or leave --labels out"
        )
    if renamed:
        told = ", ".join(f"{shown(old)} is {shown(new)}" for old, new in renamed[:5])
        log.warning(f"note: {labels} renames signs: {told}" + (" and so on" if renamed[5:] else ""))
    return replace(source, sign_names=names)


def numbers_among(known: Sequence[str], names: Sequence[str]) -> list[int]:
    """The numbers that a model knows signs of these names by.

    Raises:
        DataError: it does not know them all.
    """
    unknown = [name for name in names if known.count(name) != 1]
    if unknown:
        raise DataError(
            f"sign_names: found {listed(unknown)} in the data, expected each once among the "
            f"{len(known)} signs that the model knows; leave such clips out, or name the signs alike (--labels)"
        )
    return [known.index(name) for name in names]


def _from_lines(text: str) -> list[str]:
    return [plain_name(line) for line in text.rstrip().split("\n")] if text.strip() else []


def _from_json(path: Path, text: str) -> list[str]:
    try:
        content = json.loads(text, object_pairs_hook=_object_of)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: starts like JSON but is not ({reason_of(error)}); mend it or give one name a line"
        ) from error
    english, arabic = (_words(path, content, key) for key in (_ENGLISH, _ARABIC))
    if english and arabic and len(english) != len(arabic):
        raise DataError(
            f"{path}: found {len(english)} {_ENGLISH} and {len(arabic)} {_ARABIC}, expected the same number; "
            "mend the lists"
        )
    if english and arabic:  # two signs may have one English word
        times = Counter(english)
        pairs = zip(english, arabic, strict=True)
        english = [f"{word} ({other})" if times[word] > 1 else word for word, other in pairs]
    return english or arabic


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice")
    return content


def _words(path: Path, content: dict[str, Any], key: str) -> list[str]:
    """The names under `key`; some signs of KArSL are numbers and stand there as such."""
    words = content.get(key, [])
    if not isinstance(words, list) or not all(isinstance(word, str | int | float) for word in words):
        raise DataError(f"{path}: {key}: found {type(words).__name__}, expected a list of names or numbers; mend it")
    return [plain_name(str(word)) for word in words]
