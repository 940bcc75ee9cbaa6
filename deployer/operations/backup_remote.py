"""A copy of the backups elsewhere, by restic: it encrypts, adds only what is new, and knows SFTP, S3 and more.

The repository holds the whole directory of the backups, as of each backup. Its password and its address reach restic by
its environment, never by its command line.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.deployment.secret_refs import resolve
from deployer.errors import ConflictError, UsageError, VerificationError
from deployer.host.runner import Completed, Runner

if TYPE_CHECKING:
    from deployer.profile.models import Remote

PROGRAM = "restic"
FETCHING = ".fetching"
"""Suffix of the directory that a repository is restored to, until it is whole."""
_ABSENT = re.compile(r"Is there a repository at|repository does not exist|unable to open config file", re.IGNORECASE)
_LIMIT = 24 * 3600.0
_TAG = "deployer"
_LEFT_OUT = ("new", "lock", "incoming.json")
"""What belongs to a run on the directory, and not to a backup."""


def chosen(settings: Remote, repository: str, password: str, options: Sequence[str]) -> Remote:
    """The repository of the command line, else that of the profile. Raises UsageError without one, ProfileError."""
    given: dict[str, object] = {"repository": repository, "password": password, "options": tuple(options)}
    found = {**settings.model_dump(), **{key: value for key, value in given.items() if value}}
    if not found["repository"] or not found["password"]:
        raise UsageError(
            "no repository of backups, or no password for it",
            hint="add --remote REPOSITORY --remote-password file:PATH, or set backup.remote",
        )
    try:
        return type(settings).model_validate(found)
    except ValueError:
        raise UsageError(
            "--remote-password is no reference to a secret",
            hint="give env:NAME, file:PATH, command:WORDS or keyring:SERVICE/USER",
        ) from None


def copy_to(remote: Remote, directory: Path) -> None:
    """Copy the backups in ``directory`` to the repository, which is made if there is none.

    Raises VerificationError, ConflictError without restic, ProfileError for a password that can't be had.
    """
    left_out = [word for name in _LEFT_OUT for word in ("--exclude", name)]
    words = ("backup", "--tag", _TAG, "--host", _TAG, *left_out, ".")
    done = _restic(remote, words, cwd=directory)
    if done.returncode and _ABSENT.search(done.stderr):
        made = _restic(remote, ("init",), cwd=directory)
        done = made if made.returncode else _restic(remote, words, cwd=directory)
    _require(done, "restic failed", hint="fix the cause, then run deployer backup create again")


def prune(remote: Remote, directory: Path, keep: Mapping[str, int]) -> None:
    """Remove what no rule of ``keep`` keeps from the repository. Raises as :func:`copy_to`."""
    kept = {**keep, "last": max(1, keep.get("last", 0))}
    rules = [word for rule, number in kept.items() if number for word in (f"--keep-{rule}", str(number))]
    _restic(remote, ("unlock",), cwd=directory)  # only the locks of runs that were killed
    done = _restic(remote, ("forget", "--tag", _TAG, "--group-by", "tags", "--prune", *rules), cwd=directory)
    _require(done, "the copy was not pruned", hint="fix the cause, then run deployer backup prune again")


def fetch(remote: Remote, directory: Path) -> None:
    """Bring the backups from the repository into ``directory``, which is absent or empty.

    It gets its name when it is whole: a run that was killed is repeated.

    Raises ConflictError for a directory that holds something, and as :func:`copy_to`.
    """
    if directory.exists() and any(directory.iterdir()):
        raise ConflictError(f"{directory} is not empty", hint="choose another directory with --directory")
    restic = _ready(remote)
    beside = directory.with_name(directory.name + FETCHING)
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True, mode=0o700)
        words = ("restore", "latest", "--tag", _TAG, "--target", str(beside))
        done = restic(words, beside)
        if done.returncode:
            shutil.rmtree(beside, ignore_errors=True)
        _require(done, "the backups were not fetched", hint="fix the cause, then run it again")
        if directory.exists():
            directory.rmdir()
        beside.rename(directory)
    except OSError as error:
        raise ConflictError(
            f"{error.filename or directory} can't be written: {error.strerror}", hint="choose another directory"
        ) from None


def _restic(remote: Remote, words: Sequence[str], *, cwd: Path) -> Completed:
    return _ready(remote)(words, cwd)


def _ready(remote: Remote) -> Callable[[Sequence[str], Path], Completed]:
    """restic with the password of the repository: runs it with words, in a directory.

    Raises ConflictError without restic, ProfileError for a password that can't be had.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise ConflictError(
            "restic is not installed", hint="install the package restic, for example: apt install restic"
        )
    password = resolve(remote.password, where="backup.remote.password", env=os.environ, home=Path.home())
    env = {"RESTIC_REPOSITORY": remote.repository, "RESTIC_PASSWORD": password.reveal()}
    options = [word for option in remote.options for word in ("--option", option)]
    return lambda words, cwd: Runner(env).run([program, *options, *words], timeout=_LIMIT, cwd=cwd)


def _require(done: Completed, what: str, *, hint: str) -> None:
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise VerificationError(
            f"{what}: {lines[-1] if lines else f'restic ended with exit code {done.returncode}'}",
            hint=hint,
            details=tuple(lines[-6:-1]),
        )
