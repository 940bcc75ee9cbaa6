"""Set values in the text of a TOML file, and restore them; every other byte is unchanged. Pure.

tomlkit edits, and what it made is parsed again and compared before it is returned.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

from deployer.clients.client import Values
from deployer.clients.text import check_values
from deployer.clients.toml import keys
from deployer.errors import ClientFileError


def parse(text: str) -> dict[str, Any]:
    """The document. Raises ClientFileError with the place of the error, and without what stands there."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The message itself may quote a key.
        place = re.search(r"\(at ([^)]*)\)", str(error))
        raise ClientFileError(
            f"not readable as TOML{f', {place[1]}' if place else ''}", hint="correct it by hand"
        ) from None


def merge(text: str, values: Values) -> str:
    """``text`` with ``values`` set, by their addresses (see ``keys``), and nothing else changed.

    Raises ClientFileError when the text is not TOML, or when a value can't be set without changing others.
    """
    check_values(values)
    document = parse(text)
    wanted = copy.deepcopy(document)
    try:
        for key, value in values.items():
            keys.put(wanted, key, value)
    except keys.NotATable:
        raise _refused(values) from None
    if wanted == document:
        return text

    def change(edited: Any, make: keys.Make) -> None:
        for key, value in values.items():
            keys.put(edited, key, value, make)

    return _edited(text, wanted, change, values)


def unmerge(text: str, *, original: str, written: Sequence[Values]) -> tuple[str, tuple[str, ...]]:
    """``text`` with our values as they are in ``original``; and the keys that somebody else has set since.

    ``written``: all values that deployer ever set. Raises ClientFileError as :func:`merge` does.
    """
    merged = [merge(original, values) for values in written]
    if text in merged:
        return original, ()
    document, former = parse(text), parse(original)
    ours: dict[str, set[str]] = {}
    for values in written:
        for key, value in values.items():
            ours.setdefault(key, set()).add(value)
    doomed = [key for key, known in ours.items() if keys.get(document, key) in known]
    kept = tuple(key for key in ours if key not in doomed and keys.get(document, key) is not None)
    wanted = copy.deepcopy(document)
    for key in doomed:
        keys.restore(wanted, key, former)
    if wanted == document:
        return text, kept
    for candidate in (_patched(text, made, original) for made in reversed(merged)):
        if candidate is not None and _parses_to(candidate, wanted):
            return candidate, kept

    def change(edited: Any, _: keys.Make) -> None:
        source = _tomlkit(original)
        for key in doomed:
            keys.restore(edited, key, source)

    return _edited(text, wanted, change, doomed), kept


def _edited(text: str, wanted: dict[str, Any], change: Callable[[Any, keys.Make], None], names: Iterable[str]) -> str:
    """What ``change`` makes of ``text``, if that is the document ``wanted``."""
    crlf = "\r\n" in text and text.count("\n") == text.count("\r\n")
    # tomlkit appends a table to the last line if that has no end.
    ended = text if not text or text.endswith("\n") else text + "\n"
    ended = ended.replace("\r\n", "\n") if crlf else ended
    document = _tomlkit(ended)
    if document.as_string() != ended:
        raise ClientFileError(
            "parts of one table or array of tables stand apart from each other", hint="put them next to each other"
        )
    try:
        change(document, _make())
        made = _spaced(ended, str(document.as_string()))
    except Exception:  # tomlkit raises many kinds for what it can't edit
        raise _refused(names) from None
    if not text.endswith("\n") and made.splitlines()[-1:] == ended.splitlines()[-1:]:
        made = made.removesuffix("\n")
    if crlf:
        made = made.replace("\n", "\r\n")
    if not _parses_to(made, wanted):
        raise _refused(names)
    return made


def _spaced(text: str, made: str) -> str:
    """``made`` with a blank line between what was added to ``text`` and a table that follows."""
    before, after = text.splitlines(keepends=True), made.splitlines(keepends=True)
    rows: list[str] = []
    for kind, _, _, start, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        rows += after[start:end]
        if kind == "insert" and end < len(after) and after[end].startswith("[") and after[end - 1].strip():
            rows.append("\n")
    return "".join(rows)


def _refused(names: Iterable[str]) -> ClientFileError:
    listed = ", ".join(names)
    return ClientFileError(f"{listed} can't be set without changing other settings", hint=f"set {listed} by hand")


def _parses_to(text: str, wanted: dict[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _tomlkit(text: str) -> Any:
    import tomlkit

    return tomlkit.parse(text)


def _make() -> keys.Make:
    import tomlkit
    from tomlkit.items import Array

    return keys.Make(
        tomlkit.table,
        tomlkit.aot,
        lambda rows: tomlkit.inline_table() if isinstance(rows, Array) else tomlkit.table(),
    )


def _patched(text: str, made: str, original: str) -> str | None:
    """Undo in ``text`` what made ``made`` of ``original``, block by block; ``None`` if one of them has changed."""
    for ours, theirs in _blocks(made.splitlines(keepends=True), original.splitlines(keepends=True)):
        if not ours or text.count(ours) != 1:
            return None
        text = text.replace(ours, theirs)
    return text


def _blocks(made: list[str], original: list[str]) -> Iterator[tuple[str, str]]:
    for kind, first, last, start, end in SequenceMatcher(None, made, original, autojunk=False).get_opcodes():
        if kind != "equal":
            yield "".join(made[first:last]), "".join(original[start:end])
