"""Remove our keys from the text of a pip.conf, also when another program changed it since. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from deployer.clients.client import Values
from deployer.clients.pip.grammar import (
    OPTIONS,
    SECTION,
    Kind,
    Line,
    cut,
    join,
    normalize,
    parse,
    scan,
    values_of,
)
from deployer.clients.pip.merging import merge
from deployer.errors import ClientFileError


def unmerge(text: str, *, original: str, written: Collection[Values]) -> tuple[str, tuple[str, ...]]:
    """Restore our keys as in ``original``; return the text and the options that were kept.

    ``written``: all values that deployer ever set. An option with any other value is kept: somebody else set it.
    Raises ClientFileError as :func:`merge` does.
    """
    if any(text == merge(original, values) for values in written):
        return original, ()
    before, former = parse(text), scan(original)
    kept = []
    for option in OPTIONS:
        ours = {values[option] for values in written if option in values}
        if option == "trusted-host":
            text = _without_hosts(text, ours, former)
        elif ours and values_of(text, option) - ours:
            kept.append(option)
        elif ours:
            text = _restored(text, option, former)
    text = _without_empty_section(text, former)
    if _others(parse(text)) != _others(before):
        raise ClientFileError(
            "our keys can't be removed without changing others", hint="remove index-url and timeout by hand"
        )
    return text, tuple(kept)


def _others(sections: Mapping[str, Values]) -> dict[str, dict[str, str]]:
    """All settings but those that are ours to set; sections that are then empty left out."""
    ours = frozenset().union(*OPTIONS.values())
    kept = {
        section: {name: value for name, value in items.items() if section != SECTION or normalize(name) not in ours}
        for section, items in sections.items()
    }
    return {section: items for section, items in kept.items() if items}


def _restored(text: str, option: str, former: list[Line]) -> str:
    """``text`` with the lines that set ``option`` as they are in ``former``; without them if it had none."""
    rows = []
    for line in scan(text):
        if not line.sets(option):
            rows.append(line.raw)
        elif line.kind is Kind.OPTION:
            rows.extend(old.raw for old in former if old.sets(option) and old.name == line.name)
    return join(rows, like=text)


def _without_hosts(text: str, hosts: Collection[str], former: list[Line]) -> str:
    """``text`` without the trusted ``hosts``, save those that ``former`` trusted already."""
    known = [line.raw for line in former if line.sets("trusted-host")]
    doomed = set(hosts) - {word for raw in known for word in raw.split()}
    rows = []
    for line in scan(text):
        raw = line.raw
        if doomed and line.sets("trusted-host"):
            raw = _without_words(raw, doomed)
        if known or raw == line.raw or cut(raw)[1].strip():
            rows.append(raw)
    return join(rows, like=text)


def _without_words(raw: str, words: Collection[str]) -> str:
    for word in words:
        raw = re.sub(rf"(?<=[\s=:]){re.escape(word)}(?:[ \t]|(?=\s)|\Z)", "", raw, count=1)
    return raw


def _without_empty_section(text: str, former: list[Line]) -> str:
    """``text`` without the ``[global]`` header that deployer added, when nothing is left under it."""
    lines = scan(text)
    own = [at for at, line in enumerate(lines) if line.section == SECTION]
    added = not any(line.kind is Kind.HEADER and line.section == SECTION for line in former)
    if not added or any(lines[at].raw.strip() for at in own[1:]):
        return text
    rows = [line.raw for at, line in enumerate(lines) if at not in own]
    gap = own[0] - 1 if own else -1
    if former and former[-1].raw.strip() and gap >= 0 and not rows[gap].strip():
        del rows[gap]
    return join(rows, like=text)
