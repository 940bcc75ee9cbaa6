"""All clients of this host: which index each uses, and pointing them at ours and back."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployer.clients import backups
from deployer.clients.client import Account, ClientConfig, ClientFile, ClientSettings
from deployer.clients.configure import ClientChange, configure, preview, revert, undo
from deployer.clients.known import KNOWN
from deployer.clients.netrc import Netrc
from deployer.clients.registry import CLIENT_FILES
from deployer.diagnosis import Check, failure, ok, warning
from deployer.errors import ClientFileError, DeployerError, UsageError
from deployer.secrets import mask_url
from deployer.ui.table import columns

SCOPES = ("user", "project", "environment", "machine")
_FILES: dict[str, ClientFile] = {str(name): client for name, client in CLIENT_FILES.items()}


@dataclass(frozen=True, kw_only=True)
class Use:
    """The index that one client uses. ``reads``: the clients whose files it reads, if it has none of its own.

    ``program``: its path, empty when it is not installed; ``key``: where in the file ``source`` the index stands.
    ``ours``: whether that is our index; ``None`` when there is no deployment, or where only its user can say.
    """

    name: str
    program: str
    index: str = ""
    source: str = ""
    key: str = ""
    ours: bool | None = None
    reads: tuple[str, ...] = ()
    note: str = ""


def listed(account: Account, simple_url: str) -> list[Use]:
    """Return what each client uses; ``simple_url``: our index, empty when there is no deployment."""
    found: dict[str, Use] = {}
    for name, known in KNOWN.items():
        program = known.found(account)
        if (client := _FILES.get(name)) is not None:
            config = client.read(account)
            index, source = config.effective(client.index_key)
            ours = _is_ours(index, simple_url)
            found[name] = Use(
                name=name, program=program, index=index, source=source, key=config.key, ours=ours, note=known.note
            )
        else:
            read = [found[other].ours for other in known.reads]
            together = None if None in read or not read else all(read)
            found[name] = Use(name=name, program=program, ours=together, reads=known.reads, note=known.note)
    return list(found.values())


def _is_ours(index: str, simple_url: str) -> bool | None:
    return index.rstrip("/") == simple_url.rstrip("/") if simple_url else None


def table(uses: Sequence[Use]) -> str:
    """Format what clients use: client, index, where that is set."""
    lines = columns([(use.name, _index(use), _where(use)) for use in uses if use.program])
    missing = ", ".join(use.name for use in uses if not use.program)
    return "\n".join(filter(None, (lines, missing and f"not installed: {missing}")))


def _index(use: Use) -> str:
    if use.reads:
        return f"as {' and '.join(use.reads)}"
    if use.name not in _FILES:
        return "its own default"
    return mask_url(use.index) or "its own default"


def _where(use: Use) -> str:
    return " ".join(filter(None, (use.source, use.key))) if use.source else use.note


# Writing


@dataclass(frozen=True, kw_only=True)
class Target:
    """One client file: ``scope`` by the client's own name of it."""

    name: str
    client: ClientFile
    scope: str


def targets(names: Sequence[str], scope: str, account: Account) -> tuple[list[Target], tuple[str, ...]]:
    """Return the files to write, and a sentence for each client that can't be configured.

    ``names``: empty for all clients that are installed. Raises UsageError for an unknown client or scope, and
    ClientFileError when a client that was named can't be configured.
    """
    _check(names, scope)
    chosen = names or [name for name, known in KNOWN.items() if known.found(account)]
    found: dict[str, Target] = {}
    left: list[str] = []
    for name in chosen:
        try:
            files = {target.name: target for target in _of(name, scope, account)}
            found |= files
            if without := [other for other in KNOWN[name].reads if other not in files]:
                left.append(f"{name} may install with {without[0]}, too, which has no file of the scope {scope!r}")
        except ClientFileError as error:
            if names:
                raise
            left.append(f"{name} is not configured: {error.message}; {error.hint}")
    return list(found.values()), tuple(left)


def _check(names: Sequence[str], scope: str) -> None:
    if scope and scope not in SCOPES:
        raise UsageError(f"{scope!r} is an unknown scope", hint=f"use one of: {', '.join(SCOPES)}")
    for name in names:
        if name not in KNOWN:
            raise UsageError(f"{name!r} is an unknown client", hint=f"use some of: {', '.join(KNOWN)}")


def _of(name: str, scope: str, account: Account) -> Iterator[Target]:
    """The files of this scope that ``name`` reads."""
    known = KNOWN[name]
    if not known.reads:
        raise ClientFileError(f"{name} reads its index from no file", hint=known.cure)
    able = [other for other in known.reads if scope in _FILES[other].own_scopes]
    if not able:
        owned = ", ".join(dict.fromkeys(own for other in known.reads for own in _FILES[other].own_scopes))
        raise ClientFileError(f"{name} has no file of the scope {scope!r}", hint=f"choose --scope from: {owned}")
    for other in able:
        client = _FILES[other]
        target = Target(name=other, client=client, scope=client.own_scopes[scope])
        path = client.detect(target.scope, account)
        if reason := client.read(account).ignores(path):
            raise ClientFileError(f"{other} does not read {path}: {reason}", hint=_elsewhere(client, scope))
        yield target


def _elsewhere(client: ClientFile, scope: str) -> str:
    """The cure for a file of ``scope`` that the client does not read."""
    if client.name == "poetry" and scope == "user":
        return f"{client.command} --scope project"
    return "unset that variable"


def proposed(chosen: Sequence[Target], settings: ClientSettings, account: Account) -> dict[str, ClientChange]:
    """Return what :func:`apply` would do, by the names of clients. Raises ClientFileError."""
    return {t.name: preview(t.client, settings, scope=t.scope, account=account) for t in chosen}


def apply(chosen: Sequence[Target], settings: ClientSettings, account: Account) -> dict[str, ClientChange]:
    """Write all files, or none. Raises ClientFileError, Locked."""
    proposed(chosen, settings, account)  # refuse before the first effect
    made: dict[str, ClientChange] = {}
    try:
        for target in chosen:
            made[target.name] = configure(target.client, settings, scope=target.scope, account=account)
    except DeployerError:
        for target in reversed(chosen):
            if target.name in made and made[target.name].changed:
                with contextlib.suppress(DeployerError):
                    revert(target.client, made[target.name], scope=target.scope, account=account)
        raise
    return made


def restore(names: Sequence[str], scope: str, account: Account) -> tuple[list[tuple[str, ClientChange]], list[Path]]:
    """Restore the files of ``names`` (all clients) in ``scope`` (all); return what changed, and files elsewhere.

    Raises UsageError, ClientFileError, Locked.
    """
    _check(names, scope)
    done = []
    # In the opposite order of writing: of a file that clients share, each finds what it wrote.
    for name in reversed(dict.fromkeys(other for given in names or KNOWN for other in KNOWN[given].reads)):
        client = _FILES[name]
        for own in client.scopes if not scope else filter(None, (client.own_scopes.get(scope),)):
            try:
                client.detect(own, account)
            except ClientFileError:
                continue  # there is no such file here
            change = undo(client, scope=own, account=account)
            if change.changed or change.warnings:
                done.append((name, change))
    if not names and scope in ("", "user"):
        change = undo(Netrc(), account=account)
        if change.changed or change.warnings:
            done.append((Netrc.name, change))
    return done, list(backups.paths(account.state)) if not names and not scope else []


def difference(change: ClientChange) -> str:
    """The change as a unified diff, with the credentials of URLs blanked; empty when there is none."""
    before, after = ((text or b"").decode().splitlines() for text in (change.before, change.after))
    path = str(change.path)
    return mask_url("\n".join(difflib.unified_diff(list(before), list(after), path, path, lineterm="")))


def row(name: str, change: ClientChange) -> dict[str, object]:
    """A change as the JSON envelope has it."""
    return {"client": name, "path": str(change.path), "changed": change.changed, "masks": list(change.masks)}


# Checking


def checks(account: Account, simple_url: str) -> Iterator[Check]:
    """Say of each installed client whether it installs from our index alone, and what to do if not."""
    states: dict[str, Check] = {}
    for name, known in KNOWN.items():
        installed = bool(known.found(account))
        if (client := _FILES.get(name)) is not None:
            states[name] = _own(name, client, client.read(account), account, simple_url)
            if installed:
                yield states[name]
        elif installed and not known.reads:
            yield warning(name, known.note, cure=known.cure)
        elif installed:
            yield _reader(name, [states[other] for other in known.reads])


def _own(name: str, client: ClientFile, config: ClientConfig, account: Account, simple_url: str) -> Check:
    index, source = config.effective(client.index_key)
    where = f"{mask_url(index)} ({' '.join(filter(None, (source, config.key)))})" if index else "its own default index"
    if config.warnings:
        return failure(name, f"{where}; {'; '.join(config.warnings)}", cure="remove it, or make it a base of our index")
    if _is_ours(index, simple_url) is not False:
        return ok(name, where)
    evidence = f"installs from {where}, not from this server"
    if source and not config.key:
        return failure(name, evidence, cure=f"unset {source}")
    path = client.detect("user", account)
    if reason := config.ignores(path):
        return failure(name, f"{evidence}; {path} is not read: {reason}", cure=_elsewhere(client, "user"))
    return failure(name, evidence, cure=_written_and_unread(client, config, account) or client.command)


def _written_and_unread(client: ClientFile, config: ClientConfig, account: Account) -> str:
    """Why a file that we wrote does not count; empty when that is not the reason."""
    for scope in client.scopes:
        with contextlib.suppress(ClientFileError):
            path = client.detect(scope, account)
            if backups.load(path, state=account.state, part=client.part(path)) and (
                masks := config.masks(client.index_key, path)
            ):
                return f"remove what has precedence: {masks[0]}"
    return ""


def _reader(name: str, read: Sequence[Check]) -> Check:
    wrong = [check for check in read if check.level == "failure"]
    note = KNOWN[name].note
    if not wrong:
        return ok(name, f"reads the files of {' and '.join(check.name for check in read)}; {note}")
    return failure(name, f"{note}; {wrong[0].name} {wrong[0].evidence}", cure=wrong[0].cure)
