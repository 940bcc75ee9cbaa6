"""Read requirements that are pinned: ``name==version``, with or without hashes, as ``uv pip compile`` writes them."""

from __future__ import annotations

import re
from pathlib import Path

from deployer.selection.wanted import NotReadable, Wanted

_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r"\s--hash[= ](\S+)")


def parse(text: str, path: Path) -> list[Wanted]:
    """Return the pinned requirements of ``text``. Options such as ``--index-url`` are passed over.

    Raises NotReadable: a requirement without a version, one that is no requirement, another file (``-r``).
    """
    return [_requirement(line, path, number) for number, line in _lines(text) if not _is_option(line, path, number)]


def _lines(text: str) -> list[tuple[int, str]]:
    """The logical lines with the number of their first line; a backslash joins."""
    found: list[tuple[int, str]] = []
    joined, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        plain = _COMMENT.sub("", line).rstrip()
        joined += plain.removesuffix("\\")
        if not plain.endswith("\\"):
            if joined.strip():
                found.append((start, joined.strip()))
            joined, start = "", 0
    if joined.strip():
        found.append((start, joined.strip()))
    return found


def _is_option(line: str, path: Path, number: int) -> bool:
    if re.match(r"(-r|-c|--requirement|--constraint|-e|--editable)\b", line):
        raise NotReadable(f"{path}:{number}: {line.split()[0]} is not read here", hint=_COMPILE.format(path))
    return line.startswith("-")


_COMPILE = "uv pip compile --generate-hashes {} -o requirements.lock.txt"


def _requirement(line: str, path: Path, number: int) -> Wanted:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        requirement = Requirement(_HASH.sub("", f"{line} ").strip())
    except InvalidRequirement:
        raise NotReadable(f"{path}:{number}: not a requirement: {line[:80]}", hint=_COMPILE.format(path)) from None
    specifiers = list(requirement.specifier)
    pinned = len(specifiers) == 1 and specifiers[0].operator in ("==", "===") and "*" not in specifiers[0].version
    if requirement.url or not pinned:
        raise NotReadable(f"{path}:{number}: {requirement.name} has no version", hint=_COMPILE.format(path))
    hashes = (word.removeprefix("sha256:") for word in _HASH.findall(line) if word.startswith("sha256:"))
    return Wanted(
        project=canonicalize_name(requirement.name),
        version=specifiers[0].version,
        sha256s=frozenset(hashes),
        markers=(str(requirement.marker),) if requirement.marker else (),
    )
