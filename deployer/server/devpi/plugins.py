"""devpi's plugins that the profile names: where they are, that they are the ones, and their options."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.protocol import ExitCode, Refusal

if TYPE_CHECKING:
    from pluggy import PluginManager

OF_DEVPI = frozenset({"--autocreate-users"})
"""Options of devpi-server itself that a profile may give. deployer decides about the others."""
_AGAIN = "deployer plugins lock, then deployer up"


def find(directory: str, pins: Iterable[str]) -> None:
    """Add a directory of plugins after all others. Raise Refusal unless each of ``pins`` (NAME==VERSION) is there."""
    if directory:
        sys.path.append(str(Path(directory).absolute()))
    for pin in pins:
        name, _, wanted = pin.partition("==")
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "none"
        if found != wanted:
            raise Refusal(f"the plugin {pin} is not installed: found {found}", hint=_AGAIN, code=ExitCode.CONFLICT)


def words(given: Sequence[str], plugins: PluginManager) -> Iterator[str]:
    """The arguments of devpi-server for options such as ``NAME=VALUE``. Raises Refusal for one that no plugin has."""
    if not given:
        return
    from devpi_server.config import get_parser, get_pluginmanager

    all_of_them = _options(get_parser(plugins))
    of_devpi = _options(get_parser(get_pluginmanager(load_entrypoints=False)))
    for option in given:
        name, _, value = option.partition("=")
        flag = f"--{name}"
        action = all_of_them.get(flag)
        if action is None or (flag in of_devpi and flag not in OF_DEVPI):
            known = sorted(one.removeprefix("--") for one in all_of_them if one not in of_devpi or one in OF_DEVPI)
            hint = f"correct server.options; there are {', '.join(known)}"
            raise Refusal(f"no plugin has the option {name}", hint=hint, code=ExitCode.PROFILE)
        if action.nargs != 0:
            yield f"{flag}={value}"
        elif value in ("true", "false"):
            yield from (flag,) if value == "true" else ()
        else:
            raise Refusal(
                f"the option {name} takes no value", hint=f"set server.options.{name}: true", code=ExitCode.PROFILE
            )


def _options(parser: Any) -> dict[str, Any]:
    return {word: action for action in parser._actions for word in action.option_strings if word.startswith("--")}
