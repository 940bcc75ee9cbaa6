"""Copying a server directory to another place, verified file by file. Standard library only.

What a copy has come to stands in the new directory itself, so that a kill at any moment is known to whoever comes
next: a directory with the file ``moving`` is not whole, and no server starts on it; one with the file ``moved`` is
whole, and no server has run on it yet.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deployer.server.boot import prepare
from deployer.server.refusal import DAMAGED, UNSAFE, Refusal
from deployer.server.secret_files import PRIVATE, Private, remove, sync, write_private

CHUNK = 1 << 20
_OF_THE_PLACE = frozenset({"lock", "moving", "moved"})
"""Names in our corner that belong to a place and not to what is copied."""
_LITTER = frozenset({"lost+found"})


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What was copied: number of files, their bytes, and one digest over the path and the digest of each."""

    files: int
    bytes: int
    sha256: str


def copy(source: Path, target: Path) -> Copied:
    """Copy the server directory ``source``, on which no server runs, to ``target``: absent, empty, or what an earlier
    copy left that was not put to use.

    Raises Refusal when either can't be used, or when what was written is not what was read.
    """
    _check_apart(source, target)
    if not (source / prepare.NODEINFO).exists():
        raise Refusal(f"{source} holds no data of devpi", cure="name the directory that the server uses", code=UNSAFE)
    _check_free(target)
    try:
        with prepare.locked(source), prepare.locked(target) as private:
            write_private(private.moving, f"{source}\n")
            private.moved.unlink(missing_ok=True)
            _clear(target)
            _check_space(source, target)
            digests = {name: _copy_file(source / name, target / name) for name in _copy_tree(source, target)}
            os.sync()
            _verify(target, digests)
            private.moving.replace(private.moved)
            sync(private.directory)
    except OSError as error:
        raise Refusal(
            f"{error.filename or target} can't be copied: {error.strerror}",
            cure="free some space, or choose another place; what was there before is untouched",
            code=UNSAFE,
        ) from None
    manifest = "".join(f"{name}\0{digest}\n" for name, (digest, _) in sorted(digests.items()))
    return Copied(
        files=len(digests),
        bytes=sum(size for _, size in digests.values()),
        sha256=hashlib.sha256(manifest.encode()).hexdigest(),
    )


def check_whole(private: Private) -> None:
    """Refuse a directory that a copy did not finish; one that it did is in use from now on. Raises Refusal."""
    if private.moving.exists():
        raise Refusal(
            f"{private.directory.parent} is an unfinished copy of {private.moving.read_text().strip()}",
            cure="finish it: deployer move, or use the data where it was",
            code=UNSAFE,
        )
    if private.moved.exists():
        remove(private.moved)


def _check_apart(source: Path, target: Path) -> None:
    one, other = source.resolve(), target.resolve()
    if one == other or one.is_relative_to(other) or other.is_relative_to(one):
        raise Refusal(f"{source} and {target} are not two places", cure="choose another directory", code=UNSAFE)


def _check_free(target: Path) -> None:
    if not target.exists():
        return
    private = Private.of(target)
    names = {entry.name for entry in os.scandir(target)} - _LITTER
    if names == {PRIVATE}:  # all that a copy has made before it says what it is
        names = {entry.name for entry in os.scandir(private.directory)} - {"lock", "moving.new"}
    if names and not private.moving.exists() and not private.moved.exists():
        raise Refusal(f"{target} is not empty", cure="choose an empty directory, or one that is absent", code=UNSAFE)


def _check_space(source: Path, target: Path) -> None:
    wanted = sum((Path(directory) / name).lstat().st_size for directory, _, names in os.walk(source) for name in names)
    free = shutil.disk_usage(target).free
    if wanted > free:
        raise Refusal(
            f"{wanted >> 20} MiB are to be copied to {target}, and {free >> 20} MiB are free there",
            cure="free some space, or choose another place",
            code=UNSAFE,
        )


def _clear(target: Path) -> None:
    """Remove what an earlier copy has left."""
    for directory, kept in ((target, _LITTER | {PRIVATE}), (target / PRIVATE, _OF_THE_PLACE)):
        for entry in os.scandir(directory):
            if entry.name in kept:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()


def _copy_tree(source: Path, target: Path) -> Iterator[str]:
    """Make every directory; the regular files, by their path below ``source``. Sockets belong to who made them."""
    for directory, names, files in os.walk(source):
        here = Path(directory)
        below = here.relative_to(source)
        names[:] = [name for name in names if name not in _LITTER]
        made = target / below
        made.mkdir(exist_ok=True)
        shutil.copystat(here, made)
        _give(here, made)
        for name in files:
            if str(below) == PRIVATE and name in _OF_THE_PLACE:
                continue
            if stat.S_ISREG((here / name).lstat().st_mode):
                yield str(below / name)


def _copy_file(source: Path, target: Path) -> tuple[str, int]:
    """Digest and bytes of what was read; times, mode and (for root) owner go along."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
            size += len(chunk)
    shutil.copystat(source, target)
    _give(source, target)
    return digest.hexdigest(), size


def _give(source: Path, target: Path) -> None:
    if os.geteuid() == 0:
        status = source.stat()
        os.chown(target, status.st_uid, status.st_gid)


def _verify(target: Path, digests: dict[str, tuple[str, int]]) -> None:
    for name, (expected, _) in digests.items():
        with (target / name).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != expected:
            raise Refusal(
                f"{target / name} is not what was written to it",
                cure="check the disk; what was there before is untouched",
                code=DAMAGED,
            )
