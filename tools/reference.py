"""Write the pages of ``docs/reference/`` that are made from the code: ``python -m tools.reference``.

They are kept in the repository, so that they can be read there; a test compares them with the code.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from typer.models import ArgumentInfo, OptionInfo

from deployer import commands
from deployer.cli import COMMANDS
from deployer.commands import envelope
from deployer.errors import DeployerError
from deployer.profile.schema import schema
from deployer.resources import profiles_dir
from deployer.server.histogram import BOUNDS
from deployer.server.nginx.metrics import METRICS

PAGES = Path(__file__).resolve().parent.parent / "docs/reference"
MADE = "<!-- Made from the code by `python -m tools.reference`: change the code, then run that. -->"
SHARED: Mapping[type, str] = {
    commands.Common: "Options of every command",
    commands.Overrides: "Options that override the profile",
}
"""Options that are told once, with the title of their table."""


def pages() -> dict[str, str]:
    """The text of each page by its file name."""
    made = {
        "commands.md": _commands(),
        "profile.md": _profile(),
        "exit-codes.md": _exit_codes(),
        "json.md": _json(),
        "metrics.md": _metrics(),
    }
    return {name: text.rstrip() + "\n" for name, text in made.items()}


def _page(title: str, lead: str, *sections: str) -> str:
    return "\n\n".join((f"# {title}", MADE, lead, *sections))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# Commands


@dataclass(frozen=True, kw_only=True)
class Word:
    """One option or argument of a verb."""

    field: str
    spelt: str
    variable: str
    default: str
    means: str
    argument: bool


def words(options: type) -> list[Word]:
    """The command line of a class of options."""
    hints = typing.get_type_hints(options, include_extras=True)
    return [
        _word(name, field, hints[name], info)
        for name, field in options.__dataclass_fields__.items()  # type: ignore[attr-defined]
        for info in getattr(hints[name], "__metadata__", ())
        if isinstance(info, OptionInfo | ArgumentInfo)
    ]


def _word(name: str, field: Any, hint: Any, info: OptionInfo | ArgumentInfo) -> Word:
    kind = typing.get_args(hint)[0]
    value = "" if kind is bool else info.metavar or name.upper()
    argument = isinstance(info, ArgumentInfo)
    # Typer takes the first name for a default, and sorts that out where it makes the command.
    names = [word for word in (info.default, *(info.param_decls or ())) if isinstance(word, str)]
    default = "" if field.default in (MISSING, None, "", False) else str(field.default)
    return Word(
        field=name,
        spelt=value if argument else " ".join((", ".join(names), value)).strip(),
        variable="" if argument else str(info.envvar or f"DEPLOYER_{name.upper()}"),
        default=default.removesuffix(".0"),
        means=info.help or "",
        argument=argument,
    )


def _commands() -> str:
    listed = _table(("command", "does"), ((f"[`{verb}`](#{slug(verb)})", said) for verb, (_, said) in COMMANDS.items()))
    shared = [f"## {title}\n\n{_options(_own(options))}" for options, title in SHARED.items()]
    return _page("Commands", COMMANDS_LEAD, listed, GRAMMAR, *shared, *map(_verb, COMMANDS))


def slug(title: str) -> str:
    """The anchor of a title, as Markdown's ``toc`` makes it."""
    return title.lower().replace(" ", "-")


def _own(options: type) -> list[Word]:
    """What a class adds to those below it."""
    (base,) = options.__bases__
    below = set(getattr(base, "__dataclass_fields__", ()))
    return [word for word in words(options) if word.field not in below]


def _verb(verb: str) -> str:
    module = importlib.import_module(f"deployer.commands.{COMMANDS[verb][0]}")
    bases = [base for base in SHARED if issubclass(module.Options, base)]
    told = {word.field for base in bases for word in _own(base)}
    own = [word for word in words(module.Options) if word.field not in told]
    usage = " ".join(("deployer", verb, "[OPTIONS]", *(word.spelt for word in own if word.argument)))
    more = " and the ".join(f"[{SHARED[base].lower()}](#{slug(SHARED[base])})" for base in bases)
    parts = [f"## {verb}", f"```text\n{usage}\n```", inspect.cleandoc(module.run.__doc__)]
    return "\n\n".join((*parts, *([_options(own)] if own else []), f"Takes also the {more}."))


def _options(told: Iterable[Word]) -> str:
    rows = ((f"`{word.spelt}`", code(word.variable), code(word.default), word.means) for word in told)
    return _table(("option", "variable", "default", "means"), rows)


def code(text: str) -> str:
    """``text`` as code; empty for nothing."""
    return f"`{text}`" if text else ""


# The profile


def _profile() -> str:
    made = schema()
    reference = (profiles_dir() / "reference.yaml").read_text(encoding="utf-8")
    sections = [_keys("Top level", made["properties"], made), *_sections(made)]
    return _page(
        "Profile",
        PROFILE_LEAD,
        *sections,
        f"## The reference profile\n\n{REFERENCE_LEAD}\n\n```yaml\n{reference.rstrip()}\n```",
    )


def _sections(made: Mapping[str, Any]) -> Iterator[str]:
    for name, definition in made["$defs"].items():
        if "properties" in definition:
            title = {"User": "users.NAME", "Index": "indexes.USER/NAME"}.get(name, name.lower())
            yield _keys(title, definition["properties"], made)


def _keys(title: str, properties: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    rows = (
        (f"`{key}`", _type(value, made), _default(value), value.get("description", ""))
        for key, value in properties.items()
    )
    return f"## {title}\n\n{_table(('key', 'type', 'default', 'means'), rows)}"


def _type(value: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """The type of a key in a word or two."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        definition = made["$defs"][name]
        return _enumerated(definition) or _link(name, definition)
    if "anyOf" in value:
        kinds = [_type(choice, made) for choice in value["anyOf"]]
        return " or ".join(kind for kind in dict.fromkeys(kinds) if kind != "null") or "null"
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}), made)}s"
    return _enumerated(value) or {"object": "mapping"}.get(value.get("type", ""), value.get("type", "any"))


def _enumerated(value: Mapping[str, Any]) -> str:
    return ", ".join(f"`{word}`" for word in value.get("enum", ()))


def _link(name: str, definition: Mapping[str, Any]) -> str:
    return f"[{name.lower()}](#{name.lower()})" if "properties" in definition else definition.get("type", "any")


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{_yaml(default)}`"


def _yaml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# Exit codes and JSON


def errors(error: type[DeployerError] = DeployerError) -> list[type[DeployerError]]:
    """Each kind of failure of ours, the more general one first; tests have kinds of their own."""
    children = (child for child in error.__subclasses__() if child.__module__ == error.__module__)
    return [error, *(found for child in children for found in errors(child))]


def _exit_codes() -> str:
    text = inspect.getmodule(DeployerError).__doc__ or ""
    meanings = dict(re.findall(r"\w+ +(?:\d+ +)?([a-z]+(?:-[a-z]+)*)  +(\S.*)$", text, re.MULTILINE))
    rows = [
        (str(error.exit_code), f"`{error.code}`", "yes" if error.retryable else "", meanings[error.code])
        for error in errors()
    ]
    table = _table(
        ("exit code", "`error.code`", "retryable", "means"), [("0", "", "", "done, or nothing to do"), *rows]
    )
    return _page("Exit codes", EXIT_LEAD, table)


def _json() -> str:
    fields = _table(("key", "holds"), ((f"`{key}`", text) for key, text in envelope.ENVELOPE.items()))
    error = _table(("key", "holds"), ((f"`{key}`", text) for key, text in envelope.ERROR.items()))
    return _page("JSON", JSON_LEAD, fields, f"## error\n\n{error}", "## data", *map(_data, envelope.DATA))


def _data(verb: str) -> str:
    keys = envelope.DATA[verb]
    rows = ((f"`{key}`" if key != envelope.FIELDS else key, text) for key, text in keys.items())
    return f"### {verb}\n\n{_table(('key', 'holds'), rows) if keys else EMPTY}"


def _metrics() -> str:
    rows = (
        (f"`{metric.name}`", metric.type, ", ".join(f"`{label}`" for label in metric.labels), metric.means)
        for metric in METRICS
    )
    bounds = ", ".join(f"{bound:g}" for bound in BOUNDS)
    return _page("Metrics", METRICS_LEAD, _table(("metric", "type", "labels", "means"), rows), LABELS.format(bounds))


EMPTY = "No data: the exit code is that of the command that was run."
COMMANDS_LEAD = """\
Every command with its options, variables and defaults. `deployer COMMAND --help` prints the same in a terminal."""
GRAMMAR = """\
## Grammar

- Every option has an environment variable. The command line takes precedence over the environment, the environment over
  the profile, the profile over what it extends, and all of them over the [defaults](profile.md).
  `deployer profiles NAME` shows each value with its source.
- Data goes to stdout; steps, progress, warnings and errors go to stderr. So `url=$(deployer up)` holds the simple URL.
- `up` uses the profile and the options of this run. An option that is left out the next time no longer applies, and
  `plan` and `up` say which those are. Put permanent settings into a profile.
- `DEPLOYER_CONFIG_DIR` moves the directory of your profiles. `DEPLOYER_STATE_DIR` moves the directory of locks, records
  of the last `up`, stored passwords, and the logs of the `process` engine.
- `deployer --install-completion` installs completion for your shell.
- [Exit codes](exit-codes.md) and the [JSON envelope](json.md) are the same for all commands."""
PROFILE_LEAD = """\
Every key of a profile, with its type and default. A profile is a YAML file; it says `extends: default` and then only
what differs. Your own profiles go to `~/.config/deployer/profiles/NAME.yaml`. `--set key=value` overrides any key
for one run."""
REFERENCE_LEAD = "The same as a file, `profiles/reference.yaml`. It loads to exactly the defaults."
EXIT_LEAD = """\
What the exit code of a command means. It is the same with and without `--json`; `error.code` is in the
[JSON envelope](json.md). A retryable failure may go away without any change. [What goes wrong](faults.md) has the
faults behind the codes."""
JSON_LEAD = """\
What `--json` prints: one document on stdout, and nothing else on stdout or stderr.

```json
{"schema": 1, "command": "up", "ok": true, "data": {}, "warnings": [], "error": null}
```"""

METRICS_LEAD = """\
Every metric of the server's `/metrics`, with its type and labels. [Monitor the server](../how-to/monitoring.md) says
how to turn it on."""
LABELS = """\
## Labels

| label | values |
|---|---|
| `index` | `USER/NAME`, at most 1,000 |
| `upstream` | scheme, host and port; the 100 with the most requests |
| `rule` | a [rule of the mirror](../how-to/guard.md): `min_age`, `deny`, ... |
| `kind` | `page`, `file`, `write` (any method but GET and HEAD), `other` |
| `source` | `nginx`: nginx had it stored. `store`: the server did. `new`: fetched or made. `devpi`: anything else |
| `code` | the HTTP status; 499: the client went away |

Durations have the buckets {} seconds. Counters per index and per upstream survive restarts; the others
begin at zero. Without nginx there is no access log, and requests of clients are not counted."""


def main() -> None:
    """Write all pages."""
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
