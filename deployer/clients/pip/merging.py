"""Set our keys in the text of a pip.conf; every other byte is unchanged. Pure.

Every result is parsed again and compared before it is returned. ConfigUpdater does not fit: it writes LF into files of
CRLF lines, reads a file of CR lines as one line, and adds a second key for pip's other spelling (``index_url``,
``index-url``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from deployer.clients.client import Values
from deployer.clients.pip.grammar import (
    OPTIONS,
    SECTION,
    SETTING,
    Kind,
    Line,
    cut,
    first_end,
    indent,
    join,
    normalize,
    parse,
    scan,
    values_of,
)
from deployer.clients.text import check_values
from deployer.errors import ClientFileError


def merge(text: str, values: Values) -> str:
    """``text`` with ``values`` set in its ``[global]`` section and nothing else changed.

    A key that is there keeps its place and spelling; a list of trusted hosts gets one more. Raises ClientFileError
    when pip could not read the text, when a value could not stand on one line, or when setting it would change what
    another key means.
    """
    check_values(values)
    before = parse(text)
    for option, value in values.items():
        text = _with(text, option, value)
    if parse(text) != _expected(before, values):
        raise ClientFileError(
            "setting index-url and timeout would change other settings (a [DEFAULT] section does that)",
            hint="set index-url and timeout in its [global] section by hand",
        )
    return text


def _expected(before: Mapping[str, Values], values: Values) -> dict[str, dict[str, str]]:
    result = {section: dict(items) for section, items in before.items()}
    section = result.setdefault(SECTION, {})
    for option, value in values.items():
        names = [name for name in section if normalize(name) in OPTIONS[option]] or [option]
        for name in names:
            section[name] = _joined(option, section.get(name, ""), value)
    return result


def _joined(option: str, former: str, value: str) -> str:
    """What the option becomes: of a list, all that was in it and the value."""
    if option != "trusted-host" or not former:
        return value
    if trusts(former, value):
        return former
    return f"{value}\n{former[1:]}" if former.startswith("\n") else f"{value} {former}"


def trusts(hosts: str, host: str) -> bool:
    """Whether pip's list ``hosts`` covers ``host`` (``name`` or ``name:port``): an entry without port covers all."""
    return not {host, host.rpartition(":")[0] or host}.isdisjoint(hosts.split())


def _with(text: str, option: str, value: str) -> str:
    lines = scan(text)
    if not any(line.sets(option) for line in lines):
        return _inserted(lines, f"{option} = {value}", like=text)
    rows = []
    for line in lines:
        if not line.sets(option):
            rows.append(line.raw)
        elif option == "trusted-host":
            rows.append(_with_host(line, value, values_of(text, option)))
        elif line.kind is Kind.OPTION:
            rows.append(_with_value(line.raw, value))
    return join(rows, like=text)


def _with_value(raw: str, value: str) -> str:
    head, former, end = cut(raw)
    return raw if former.strip() == value else head + value + end


def _with_host(line: Line, host: str, lists: Collection[str]) -> str:
    if line.kind is not Kind.OPTION or all(trusts(hosts, host) for hosts in lists):
        return line.raw
    head, former, end = cut(line.raw)
    return f"{head}{host} {former}".rstrip() + end


def _inserted(lines: list[Line], body: str, *, like: str) -> str:
    headers = [at for at, line in enumerate(lines) if line.kind is Kind.HEADER and line.section == SECTION]
    if not headers:
        text = _with_section(like)
        return _inserted(scan(text), body, like=text)
    options = [at for at, line in enumerate(lines) if line.kind in SETTING and line.section == SECTION]
    # With the indentation of its neighbour, so that neither becomes a continuation of the other.
    if options:
        after = options[-1]
        model = next(lines[at].raw for at in reversed(options) if lines[at].kind is Kind.OPTION)
    else:
        after = headers[0]
        model = next((line.raw for line in lines[after + 1 :] if line.kind is not Kind.NOTHING), "")
    end = first_end(lines[after].raw) or first_end(like) or "\n"
    rows = [line.raw for line in lines]
    rows.insert(after + 1, indent(model) + body + end)
    return join(rows, like=like)


def _with_section(text: str) -> str:
    lines = [line.raw for line in scan(text)]
    end = first_end(text) or "\n"
    gap = [end] if lines and lines[-1].strip() else []
    return join([*lines, *gap, f"[{SECTION}]{end}"], like=text)
