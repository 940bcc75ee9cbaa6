"""Find profiles by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deployer.ownership import is_there, require_own
from deployer.profile.problems import Problem, Source
from deployer.profile.strictyaml import MAX_BYTES, Document, parse
from deployer.resources import profiles_dir

SUFFIXES = (".yaml", ".yml")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class ProfileFile:
    name: str
    path: Path
    description: str = ""


def user_profiles() -> Path:
    """Return where a user's own profiles are (``DEPLOYER_CONFIG_DIR``, else the platform's configuration directory).

    A profile may name commands to run, so one that another user could have written is refused.
    Raises ConflictError, Refused.
    """
    if override := os.environ.get("DEPLOYER_CONFIG_DIR"):
        directory = Path(override) / "profiles"
    else:
        from platformdirs import user_config_path

        directory = user_config_path("deployer", appauthor=False) / "profiles"
    if is_there(directory):
        require_own(directory, "profile directory", owners=(0,), insist="DEPLOYER_CONFIG_DIR")
    return directory


def available(user_dir: Path | None = None) -> tuple[ProfileFile, ...]:
    """All profiles by name: a user's own one hides a shipped one of the same name."""
    found: dict[str, ProfileFile] = {}
    for directory in (user_dir or user_profiles(), profiles_dir()):
        for path in _files(directory):
            description = read_document(path, str(path)).tree.get("description")
            found.setdefault(
                path.stem,
                ProfileFile(name=path.stem, path=path, description=description if isinstance(description, str) else ""),
            )
    return tuple(sorted(found.values(), key=lambda profile: profile.name))


def reference(ref: str) -> str:
    """The absolute form of the profile ``ref``, valid in every directory."""
    try:
        return str(Path(ref).expanduser().resolve()) if is_path(ref) else ref
    except RuntimeError:  # ~user of an unknown user
        return ref


def is_path(ref: str) -> bool:
    """Whether ``ref`` is a path, and not a name."""
    return "/" in ref or ref.endswith(SUFFIXES)


def is_file(path: Path) -> bool:
    """Whether the file exists and is visible to this user."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, a directory that may not be searched
        return False


def _files(directory: Path) -> Iterator[Path]:
    try:
        listed = sorted(directory.iterdir())
    except OSError:
        return
    yield from (path for path in listed if path.suffix in SUFFIXES and NAME.fullmatch(path.stem) and is_file(path))


def read_document(path: Path, name: str) -> Document:
    """Read the file; ``name``: its name in messages. Never raises."""
    try:
        with path.open("rb") as stream:
            return parse(stream.read(MAX_BYTES + 1), name=name)
    except OSError as error:
        problem = Problem(message=f"can't be read: {error.strerror}", source=Source(where=name))
        return Document(problems=(problem,))
