"""The Typer application: register the commands, turn failures into message, hint and exit code. No logic."""

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
from deployer.errors import ClientFileError, DeployerError, Interrupted, OutputError, UsageError
from deployer.host import interrupts
from deployer.operations.recorded import DEFAULT_NAME
from deployer.ui import streams
from deployer.ui.output import UI, Result

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Start the server, create its indexes and configure pip."),
    "plan": ("plan", "Show what `up` would do, without changing anything."),
    "down": ("down", "Stop and remove the server; --purge deletes its data."),
    "start": ("start", "Start a stopped server and wait until it is ready."),
    "stop": ("stop", "Stop the server; `deployer start` starts it again."),
    "restart": ("restart", "Restart the server and wait until it is ready."),
    "status": ("status", "Show the state of the server and whether it is ready."),
    "logs": ("logs", "Show the server's log with secrets masked."),
    "stats": ("stats", "Show cache hits, misses and bytes by index and upstream."),
    "top": ("top", "Show requests, hits, upstreams and threads, live."),
    "doctor": ("doctor", "Check this host and the server; suggest fixes."),
    "open": ("open", "Open the index in the browser, logged in as root."),
    "verify": ("verify", "Download with pip and uv through the index; show sources."),
    "cluster status": ("cluster.status", "Show each member: role, serial, lag, files, version."),
    "cluster scale": ("cluster.scale", "Have so many replicas, and wait until all are in sync."),
    "cluster promote": ("cluster.promote", "Stop the primary, and make another member the primary."),
    "cluster renew": ("cluster.renew", "Delete the data of a replica, and have it copy all again."),
    "offline on": ("offline.on", "Turn offline mode on: ask no upstream, serve what is here."),
    "offline off": ("offline.off", "Turn offline mode off: upstreams are asked again."),
    "offline status": ("offline.status", "Show whether the server is offline."),
    "offline check": ("offline.check", "Prove that requirements and lock files install offline."),
    "warm": ("warm", "Cache what requirements and lock files need."),
    "move": ("move", "Move the data to another directory or volume."),
    "adopt": ("adopt", "Upload packages of a directory or index to a stage."),
    "backup create": ("backup.create", "Take a backup while the server serves."),
    "backup list": ("backup.list", "List the backups, oldest first."),
    "backup verify": ("backup.verify", "Prove that a backup can be restored."),
    "backup restore": ("backup.restore", "Restore a backup, here or on another machine."),
    "backup fetch": ("backup.fetch", "Bring the backups of a remote repository to this machine."),
    "backup prune": ("backup.prune", "Remove backups that no rule keeps."),
    "check": ("check", "Check database, files and cached pages of the server."),
    "compact": ("compact", "Write the database anew, without its unused pages."),
    "upgrade": ("upgrade", "Run a newer server on the data, and keep a way back."),
    "rollback": ("rollback", "Go back to the server and data before the last upgrade."),
    "audit": ("audit", "List what several indexes have, and what rules hold back."),
    "why": ("why", "Show which index serves a project, and what is held back."),
    "render": ("render", "Print it as a script or a file of another tool."),
    "configure-pip": ("configure_pip", "Point pip at the index; keep its other settings."),
    "clients list": ("clients.list", "List the clients here, and the index, file and key of each."),
    "clients apply": ("clients.apply", "Point clients at the index; keep their other settings."),
    "clients diff": ("clients.diff", "Show what `clients apply` would change, and change nothing."),
    "clients login": ("clients.login", "Give clients a login for a protected index, in ~/.netrc."),
    "clients logout": ("clients.logout", "Remove the logins of clients from ~/.netrc."),
    "clients undo": ("clients.undo", "Restore the former settings of clients exactly."),
    "clients doctor": ("clients.doctor", "Find clients that would bypass the index; show a cure."),
    "locks check": ("locks.check", "Find lock files that hold addresses of a devpi index."),
    "locks repair": ("locks.repair", "Replace our addresses in lock files by the upstream's."),
    "install-service": ("install_service", "Install a systemd unit that starts the server at boot."),
    "exec": ("exec", "Run one command with the index in its environment."),
    "build": ("build", "Build an image whose steps install from the index."),
    "env": ("env", "Print the variables of the index for a shell."),
    "profiles": ("profiles", "List profiles, or show one with the source of each value."),
    "image build": ("image.build", "Build deployer's own server image."),
    "image remove": ("image.remove", "Remove deployer's own server images that no container uses."),
    "plugins lock": ("plugins.lock", "Pin the plugins of the profile, and what they need, by hash."),
    "secret show": ("secret.show", "Print the stored password of a user."),
    "user list": ("user.list", "List the users of the server."),
    "user create": ("user.create", "Create a user; generate and store the password."),
    "user modify": ("user.modify", "Change the fields of a user; an empty value removes a field."),
    "user delete": ("user.delete", "Delete a user without indexes."),
    "user passwd": ("user.passwd", "Change a user's password; generate it unless one is given."),
    "index list": ("index.list", "List the indexes of the server."),
    "index show": ("index.show", "Show the fields of an index as profile keys."),
    "index create": ("index.create", "Create an index from KEY=VALUE arguments."),
    "index modify": ("index.modify", "Change the given fields of an index."),
    "index delete": ("index.delete", "Delete an index and its files, unless it is another's base."),
    "index apply": ("index.apply", "Apply the profile's users and indexes without a restart."),
    "index accept": ("index.accept", "Accept that another base serves a project than at first."),
    "index export": ("index.export", "Print users and indexes of the server as a profile."),
    "mirror list": ("mirror.list", "List the mirrors of the server, each with its upstream."),
    "mirror create": ("mirror.create", "Create a mirror of an upstream."),
    "mirror modify": ("mirror.modify", "Change the given fields of a mirror; keep its files."),
    "mirror delete": ("mirror.delete", "Delete a mirror and its cache."),
    "mirror refresh": ("mirror.refresh", "Ask the upstreams anew for pages that the server has."),
    "mirror malicious": ("mirror.malicious", "Load the list of malicious releases that no mirror lets in."),
    "mirror rotate": ("mirror.rotate", "Reload the upstream credentials of the running server."),
    "package list": ("package.list", "List the projects on an index, without those of its bases."),
    "package show": ("package.show", "Show the versions and files of a project, as pip sees them."),
    "package upload": ("package.upload", "Upload wheels and sdists; skip files that are already there."),
    "package download": ("package.download", "Download the files of one version and verify their SHA-256."),
    "package push": ("package.push", "Copy a release from one index to another, on the server."),
    "package remove": ("package.remove", "Remove a version, or a whole project, from an index."),
    "bundle create": ("bundle.create", "Write what a machine without a network needs into one file."),
    "bundle inspect": ("bundle.inspect", "Show what is in a bundle, and verify its checksums."),
    "bundle load": ("bundle.load", "Load a bundle into a deployment; start one if there is none."),
    "bundle manifest": ("bundle.manifest", "Write which files are here, for `bundle create --since`."),
    "cache list": ("cache.list", "List the projects that the server has, cached or uploaded."),
    "cache show": ("cache.show", "Show the files of a project that the server has."),
    "cache du": ("cache.du", "Show what takes the disk: by kind, index and project."),
    "cache prune": ("cache.prune", "Remove what nobody uses from the cache."),
    "cache save": ("cache.save", "Write the cached files that a job needs into a directory."),
    "cache restore": ("cache.restore", "Give the server the files that `cache save` wrote."),
    "token create": ("token.create", "Create a token to upload, read, or both, and print it once."),
    "token exchange": ("token.exchange", "Exchange the ID token of a CI job for a short-lived token."),
    "token list": ("token.list", "List the tokens of a user: ID, scope, expiry."),
    "token revoke": ("token.revoke", "Revoke a token by its ID, with immediate effect."),
    "tls ca": ("tls.ca", "Print the CA's certificate, which clients have to trust."),
    "tls renew": ("tls.renew", "Give the server the certificate that its files hold now."),
    "secret set": ("secret.set", "Store the existing password of a user."),
}
"""Each verb with its module in ``deployer/commands/`` and its summary of at most 62 characters.

``--help`` lists all verbs without importing a module; a command line imports the module of its own verb only."""

NAMELESS = ("bundle inspect", "image build", "image remove", "profiles")
"""Verbs that act on no deployment and take no ``--name``."""

COMPLETING = "_DEPLOYER_COMPLETE"
"""Environment variable that shell completion sets; completion needs the options of every verb."""
# Base class of usage errors; Typer may bring its own copy of click, so the class is not imported from click.
_MISUSE: Any = typer.BadParameter.__base__
GROUPS = {
    "cluster": "See and change the members of a cluster.",
    "clients": "Point installers at the index, and back.",
    "locks": "Keep our addresses out of lock files.",
    "offline": "Serve without upstreams, and prove that it suffices.",
    "image": "Build and remove deployer's own server image.",
    "plugins": "Pin plugins of devpi-server.",
    "secret": "Show and store the passwords of a deployment.",
    "user": "Manage the users of a server.",
    "index": "Manage the indexes of a server.",
    "mirror": "Manage indexes that mirror an upstream.",
    "package": "Manage the packages on an index.",
    "bundle": "Carry a deployment to a machine without a network.",
    "cache": "See, prune, save and restore what the server has cached.",
    "token": "Manage tokens for uploads and for reading.",
    "tls": "Manage the certificate of HTTPS.",
    "backup": "Take, verify and restore backups.",
}
EPILOG = "Everybody reads an index without `read`; SECURITY.md lists what is protected and what is not."


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
    """Return the fields of an options class as Typer parameters, each with its environment variable DEPLOYER_…."""
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
    from deployer.commands.instead import clustered

    def call(**values: Any) -> None:

        raise SystemExit(execute(verb, clustered(verb, module.run), module.Options(**values)))

    parameters = _parameters(module.Options)
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__doc__ = module.run.__doc__
    return call


def execute(verb: str, run: Callable[[Any, UI], Result], options: Any) -> int:
    """Run one command and return its exit code. A failure is printed, not raised; ``--debug`` adds the traceback."""
    ui = UI(json=options.json, quiet=options.quiet, address=partial(addressed, name=options.name))
    try:
        try:
            result = run(options, ui)
        except KeyboardInterrupt:
            _mark_interrupt_handled()
            ui.fail(verb, Interrupted("interrupted", hint="run the same command again"))
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
        # The reader of a streamed result has closed the pipe (`logs -f | head`): the command is complete.
        streams.silence(sys.stdout)
        return 0


def addressed(text: str, *, name: str) -> str:
    """Add ``--name`` to each deployer command in ``text``, so that a hint is about the same deployment."""
    if name == DEFAULT_NAME:
        return text
    verbs = "|".join(verb for verb in sorted(COMMANDS, key=len, reverse=True) if verb not in NAMELESS)
    return re.sub(rf"\bdeployer ({verbs})\b(?! --(help|name|debug))", rf"\g<0> --name {name}", text)


def _failure(verb: str, error: Exception) -> DeployerError:
    """Return the failure to print: a DeployerError as it is, any other exception as an internal error."""
    if isinstance(error, UsageError):
        error.hint = error.hint or f"deployer {verb} --help"
    if isinstance(error, DeployerError):
        return error
    return DeployerError(
        f"internal error: {type(error).__name__}: {error}".splitlines()[0],
        hint=f"report it with the output of 'deployer {verb} --debug'",
    )


def _mark_interrupt_handled() -> None:
    """Make CPython forget a KeyboardInterrupt that was caught.

    CPython records a KeyboardInterrupt that leaves ``exec`` of a string (dataclasses use it) as unhandled, and would
    end the process by SIGINT instead of with our exit code.
    """
    eval("None")  # noqa: S307 - running any string clears the record


def application(words: Sequence[str]) -> typer.Typer:
    """Return the app for one command line: the verb in ``words`` with its options, all others by their summary."""
    app = typer.Typer(
        name="deployer",
        epilog=EPILOG,
        no_args_is_help=True,
        # Plain help and errors: importing rich takes as long as the rest of --help.
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
    """Placeholder of a verb that is not in this command line."""
    raise AssertionError("a verb ran that is not in the command line")


def _wants_json(words: Sequence[str]) -> bool:
    """Return whether an invalid command line asks for a JSON envelope."""
    return "--json" in words or os.environ.get("DEPLOYER_JSON", "").lower() in {"1", "true", "t", "yes", "y", "on"}


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
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


def _ended(words: Sequence[str]) -> int | str | None:
    """Run one command line and return what to exit with. No failure of a stream or a file is a traceback."""
    try:
        try:
            code: int | str | None = run(words)
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
    except BrokenPipeError:
        streams.silence(sys.stdout)
        return code
    except (OutputError, OSError) as error:
        failure = _lost(error)
        streams.silence(sys.stdout)
        UI().fail("", failure)
        return failure.exit_code
    return code


def _lost(error: OutputError | OSError) -> DeployerError:
    """The failure of something that a library wrote: help to stdout, completion to a file of the shell."""
    if isinstance(error, OutputError):
        return error
    if error.filename is None:
        return streams.unwritten(error)
    return ClientFileError(
        f"{error.filename} can't be written: {error.strerror}",
        hint=f"correct its mode and owner: ls -ld {error.filename}",
    )


def main() -> None:
    """The console script."""
    streams.prepare()
    interrupts.listen()
    raise SystemExit(_ended(sys.argv[1:]))


if __name__ == "__main__":
    main()
