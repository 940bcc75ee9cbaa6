"""The Typer application: adds the commands, turns failures into message, hint and exit code. No logic."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from functools import partial
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.models import OptionInfo

from deployer import __version__
from deployer.commands import Common
from deployer.errors import DeployerError, Interrupted, UsageError
from deployer.host import interrupts
from deployer.ui.output import UI, Result, silence

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Start the server, make its indexes, and point pip at it."),
    "plan": ("plan", "Show all that `up` would do, and change nothing."),
    "down": ("down", "Stop and remove the server; keep its data unless told."),
    "start": ("start", "Start what was stopped and wait until it answers."),
    "stop": ("stop", "Stop the server; `deployer start` goes on with it."),
    "restart": ("restart", "Restart the server and wait until it truly answers."),
    "status": ("status", "Show what runs and whether it answers."),
    "logs": ("logs", "Show the server's log lines, secrets blanked."),
    "stats": ("stats", "Show hits, misses and bytes of each index and upstream."),
    "doctor": ("doctor", "Check this host and the server, and name each cure."),
    "offline": ("offline", "Serve only what is here, or ask upstreams again."),
    "move": ("move", "Move the data to another place, and go on there."),
    "audit": ("audit", "Tell which names several indexes have, and who wins."),
    "render": ("render", "Print what would be run: a script or a systemd unit."),
    "configure-pip": ("configure_pip", "Point pip at the index, keeping all else in its file."),
    "install-service": ("install_service", "Have systemd start the server at boot."),
    "exec": ("exec", "Run one command that installs from the index."),
    "profiles": ("profiles", "List the profiles, or show one with its sources."),
    "image build": ("image.build", "Build our own server image."),
    "image remove": ("image.remove", "Remove our server images that no container was made from."),
    "secret show": ("secret.show", "Print the password of a user that deployer made."),
    "user list": ("user.list", "List the users of the server."),
    "user create": ("user.create", "Create a user; the password is generated and kept here."),
    "user modify": ("user.modify", "Change what is known of a user; an empty value removes it."),
    "user delete": ("user.delete", "Delete a user who has no indexes any more."),
    "user passwd": ("user.passwd", "Change a user's password; it is generated unless given."),
    "index list": ("index.list", "List the indexes of the server."),
    "index show": ("index.show", "Show one index field by field, in the words of a profile."),
    "index create": ("index.create", "Create an index from KEY=VALUE words, as in a profile."),
    "index modify": ("index.modify", "Change the named fields of an index and no others."),
    "index delete": ("index.delete", "Delete an index with all its files, if no other builds on it."),
    "index apply": ("index.apply", "Make users and indexes as the profile says; restart nothing."),
    "index export": ("index.export", "Print users and indexes of the server as a profile."),
    "mirror list": ("mirror.list", "List the mirrors of the server, each with its upstream."),
    "mirror create": ("mirror.create", "Create a mirror of an upstream."),
    "mirror modify": ("mirror.modify", "Change the named fields of a mirror; what is cached stays."),
    "mirror delete": ("mirror.delete", "Delete a mirror and all that it has cached."),
    "mirror rotate": ("mirror.rotate", "Give the running server new credentials for its upstreams."),
    "package list": ("package.list", "List the projects on an index itself, without its bases."),
    "package show": ("package.show", "Show the versions and files of a project, as pip sees them."),
    "package upload": ("package.upload", "Upload wheels and source archives; skip what is there already."),
    "package download": ("package.download", "Download the files of one version, checked by SHA-256."),
    "package push": ("package.push", "Copy a release from one index to another, on the server."),
    "package remove": ("package.remove", "Remove a version, or a whole project, from an index."),
    "token create": ("token.create", "Make an upload token and print it, this once."),
    "token list": ("token.list", "List the upload tokens of a user: id, reach, expiry."),
    "token revoke": ("token.revoke", "Revoke an upload token by its id; it is worthless at once."),
    "secret set": ("secret.set", "Remember a user's password, for a server that has one already."),
}
"""Every verb, the module in ``deployer/commands/`` that it is, and what it does in a line: the list of all verbs is
shown without importing any, and one verb is run without importing the others."""

NAMELESS = ("image build", "image remove", "profiles")
"""Verbs that are about no deployment."""

COMPLETING = "_DEPLOYER_COMPLETE"
"""Set by the shell's completion, which may ask for the options of any verb."""
# What every complaint about a command line is, in the click that Typer brings or in the one that is installed.
_MISUSE: Any = typer.BadParameter.__base__
GROUPS = {
    "image": "Our own server image.",
    "secret": "The passwords of a deployment.",
    "user": "Who may log in.",
    "index": "Indexes: what there is, and what it should be.",
    "mirror": "Indexes that mirror an upstream.",
    "package": "Files on an index.",
    "token": "Secrets that can upload and nothing else.",
}
EPILOG = "Reading from an index needs no password; see SECURITY.md for what is and what is not protected."


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deployer {__version__}")
        raise typer.Exit


def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Your own Python package index in one command."""


def _parameters(options: type[Any]) -> list[inspect.Parameter]:
    """The fields of an options class as parameters that Typer understands, each with its variable DEPLOYER_…."""
    hints = typing.get_type_hints(options, include_extras=True)
    parameters = []
    for name, field in options.__dataclass_fields__.items():
        for info in getattr(hints[name], "__metadata__", ()):
            if isinstance(info, OptionInfo) and info.envvar is None:
                info.envvar = f"DEPLOYER_{name.upper()}"
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
        )
    return parameters


def _callback(verb: str, module: ModuleType) -> Callable[..., None]:
    def call(**values: Any) -> None:
        raise SystemExit(execute(verb, module.run, module.Options(**values)))

    parameters = _parameters(module.Options)
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__doc__ = module.run.__doc__
    return call


def execute(verb: str, run: Callable[[Any, UI], Result], options: Any) -> int:
    """Run one command; its exit code. What went wrong is printed, never raised; ``--debug`` adds where."""
    ui = UI(json=options.json, quiet=options.quiet, address=partial(addressed, name=options.name))
    try:
        try:
            result = run(options, ui)
        except KeyboardInterrupt:
            _handled()
            ui.fail(verb, Interrupted("interrupted", hint="run the command again: it goes on from what is there"))
            return Interrupted.exit_code
        except BrokenPipeError:
            raise
        except Exception as error:
            if options.debug:
                ui.trace(error)
            failure = _failure(verb, error)
            ui.fail(verb, failure)
            return failure.exit_code
        ui.finish(verb, result)
        return result.exit_code
    except BrokenPipeError:
        # Whoever read what a command says as it goes on has gone (`logs -f | head`): there is no more to do.
        silence(sys.stdout)
        return 0


def addressed(text: str, *, name: str) -> str:
    """``text`` with ``name`` in each command that is advised: without it, that would be about another deployment."""
    if name == Common.name:
        return text
    verbs = "|".join(verb for verb in sorted(COMMANDS, key=len, reverse=True) if verb not in NAMELESS)
    return re.sub(rf"\bdeployer ({verbs})\b(?! --(help|name|debug))", rf"\g<0> --name {name}", text)


def _failure(verb: str, error: Exception) -> DeployerError:
    """What is told of an exception: itself if it was meant to be told, else that it is a defect."""
    if isinstance(error, UsageError):
        error.hint = error.hint or f"deployer {verb} --help"
    if isinstance(error, DeployerError):
        return error
    return DeployerError(
        f"a defect of deployer: {type(error).__name__}: {error}".splitlines()[0],
        hint=f"please report it with the output of 'deployer {verb} --debug'",
    )


def _handled() -> None:
    """Tell CPython that an interrupt was caught. One that passed through ``exec`` of a text, as where a dataclass is
    made, is remembered as if it never were, and would end us by SIGINT instead of with our exit code."""
    eval("None")  # noqa: S307 - whatever text is run next makes it forget


def application(words: Sequence[str]) -> typer.Typer:
    """The app for one command line: whole for the verb that ``words`` name, and its list for all the others."""
    app = typer.Typer(
        name="deployer",
        epilog=EPILOG,
        no_args_is_help=True,
        # Plain help and plain errors: rich costs as much as everything else that --help does.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_main)
    groups: dict[str, typer.Typer] = {}
    for verb, (module_name, summary) in COMMANDS.items():
        group, _, leaf = verb.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=GROUPS[group])
            app.add_typer(groups[group], name=group)
        target = groups[group] if group else app
        if list(words[: len(verb.split())]) == verb.split() or COMPLETING in os.environ:
            module = importlib.import_module(f"deployer.commands.{module_name}")
            target.command(leaf, context_settings=getattr(module, "CONTEXT", None))(_callback(verb, module))
        else:
            target.command(leaf, help=summary)(_listed)
    return app


def _listed() -> None:
    """Stands for a verb that this command line does not name."""
    raise AssertionError("a verb was run that the command line does not name")


def _wants_json(words: Sequence[str]) -> bool:
    """Whether an envelope is expected, of a command line that can't be understood."""
    return "--json" in words or os.environ.get("DEPLOYER_JSON", "").lower() in {"1", "true", "t", "yes", "y", "on"}


def run(words: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    app = application(words)
    if not _wants_json(words):
        return int(app(words) or 0)
    try:
        return int(app(words, standalone_mode=False) or 0)
    except _MISUSE as misuse:
        verb = next((verb for verb in COMMANDS if list(words[: len(verb.split())]) == verb.split()), "")
        hint = " ".join(("deployer", *verb.split(), "--help"))
        UI(json=True).fail(verb, UsageError(misuse.format_message(), hint=hint))
        return UsageError.exit_code


def main() -> None:
    """The console script."""
    interrupts.listen()
    raise SystemExit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
