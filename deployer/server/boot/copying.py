"""Copy a server directory to another place, and verify each file. Standard library only.

The state of a copy is in the new directory itself, so it is known after a kill at any moment: a directory with the file
``moving`` is incomplete, and no server starts on it; one with the file ``moved`` is complete and not used yet.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from deployer.protocol import PRIVATE, Copied, ExitCode, PrivateFile, Refusal
from deployer.server.boot import prepare
from deployer.server.secret_files import Private, remove, sync, temporary_of, write_private

CHUNK = 1 << 20
_NOT_COPIED = frozenset({PrivateFile.LOCK, PrivateFile.MOVING, PrivateFile.MOVED})
"""Private files that describe a place, not its content."""
_LITTER = frozenset({"lost+found"})


def copy(source: Path, target: Path) -> Copied:
    """Copy the server directory ``source``, on which no server runs, to ``target``.

    ``target``: absent, empty, or an earlier copy that is not used. Raises Refusal when either can't be used, and on
    a checksum mismatch.
    """
    _check_apart(source, target)
    if not (source / prepare.NODEINFO).exists():
        raise Refusal(f"{source} holds no data of devpi", hint="name the server directory", code=ExitCode.REFUSED)
    with prepare.locked(source), filling(target, str(source)):
        wanted = (Path(directory) / name for directory, _, names in os.walk(source) for name in names)
        check_space(target, sum(path.lstat().st_size for path in wanted))
        digests = {name: _copy_file(source / name, target / name) for name in _copy_tree(source, target)}
        os.sync()
        _verify(target, digests)
    manifest = "".join(f"{name}\0{digest}\n" for name, (digest, _) in sorted(digests.items()))
    return Copied(
        files=len(digests),
        bytes=sum(size for _, size in digests.values()),
        sha256=hashlib.sha256(manifest.encode()).hexdigest(),
    )


@contextlib.contextmanager
def filling(target: Path, source: str) -> Iterator[Private]:
    """Fill a new server directory, which is locked and unfinished until the block has ended.

    ``target``: absent, empty, or filled before and not used. Raises Refusal, also for an OSError of the block.
    """
    _check_free(target)
    try:
        with prepare.locked(target) as private:
            write_private(private.moving, f"{source}\n")
            private.moved.unlink(missing_ok=True)
            _clear(target)
            yield private
            os.sync()
            private.moving.replace(private.moved)
            sync(private.directory)
    except OSError as error:
        raise Refusal(
            f"can't copy {error.filename or target}: {error.strerror}",
            hint="free some space, or choose another place; the source is unchanged",
            code=ExitCode.REFUSED,
        ) from None


def check_whole(private: Private) -> None:
    """Mark a complete copy as used. Raises Refusal for an incomplete one."""
    if private.moving.exists():
        raise Refusal(
            f"{private.directory.parent} is an unfinished copy of {private.moving.read_text().strip()}",
            hint="repeat the deployer move or deployer backup restore that made it, or use the data in its old place",
            code=ExitCode.REFUSED,
        )
    if private.moved.exists():
        remove(private.moved)


def _check_apart(source: Path, target: Path) -> None:
    one, other = source.resolve(), target.resolve()
    if one == other or one.is_relative_to(other) or other.is_relative_to(one):
        raise Refusal(f"{source} and {target} overlap", hint="choose another directory", code=ExitCode.REFUSED)


def _check_free(target: Path) -> None:
    if not target.exists():
        return
    private = Private.of(target)
    names = {entry.name for entry in os.scandir(target)} - _LITTER
    if names == {PRIVATE}:  # a copy that was killed before it wrote its state
        names = {entry.name for entry in os.scandir(private.directory)}
        names -= {private.lock.name, temporary_of(private.moving).name}
    if names and not private.moving.exists() and not private.moved.exists():
        raise Refusal(f"{target} is not empty", hint="choose an empty or absent directory", code=ExitCode.REFUSED)


def check_space(target: Path, wanted: int) -> None:
    """Raise Refusal when ``target`` has less than ``wanted`` bytes free."""
    free = shutil.disk_usage(target).free
    if wanted > free:
        raise Refusal(
            f"no space for the copy in {target}: {wanted >> 20} MiB needed, {free >> 20} MiB free",
            hint="free some space, or choose another place",
            code=ExitCode.REFUSED,
        )


def _clear(target: Path) -> None:
    """Remove the files of an earlier copy."""
    for directory, kept in ((target, _LITTER | {PRIVATE}), (target / PRIVATE, _NOT_COPIED)):
        for entry in os.scandir(directory):
            if entry.name in kept:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()


def _copy_tree(source: Path, target: Path) -> Iterator[str]:
    """Make all directories; yield the regular files, by their path below ``source``. Sockets are not copied."""
    for directory, names, files in os.walk(source):
        here = Path(directory)
        below = here.relative_to(source)
        names[:] = [name for name in names if name not in _LITTER]
        made = target / below
        made.mkdir(exist_ok=True)
        shutil.copystat(here, made)
        _give(here, made)
        for name in files:
            if str(below) == PRIVATE and name in _NOT_COPIED:
                continue
            if stat.S_ISREG((here / name).lstat().st_mode):
                yield str(below / name)


def _copy_file(source: Path, target: Path) -> tuple[str, int]:
    """Copy one file with times, mode and (as root) owner; the digest and the number of bytes that were read."""
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
                f"checksum mismatch: {target / name}",
                hint="check the disk; the source is unchanged",
                code=ExitCode.VERIFICATION,
            )
