"""Find and read a profile and all profiles that it extends."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deployer.profile.load.files import NAME, SUFFIXES, available, is_file, is_path, read_document
from deployer.profile.problems import Problem, Source, did_you_mean, masked, shown
from deployer.profile.strictyaml import Document
from deployer.resources import profiles_dir

_MAX_CHAIN = 10


@dataclass
class Chain:
    """The profile and all that it extends, nearest first."""

    user_dir: Path
    paths: list[Path] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def follow(self, ref: str) -> None:
        found = self._find(ref, None, None)
        while found is not None:
            path, name = found
            document = read_document(path, name)
            self.paths.append(path)
            self.documents.append(document)
            self.problems += document.problems
            found = self._parent(path, document)

    def _parent(self, path: Path, document: Document) -> tuple[Path, str] | None:
        source = document.sources.get(("extends",))
        description = document.tree.get("description")
        if not isinstance(description, str | None):
            where = document.sources.get(("description",))
            self._add("description: expected a text", "description: what it is for", where)
        parent = document.tree.get("extends")
        if isinstance(parent, str) and len(self.paths) < _MAX_CHAIN:
            return self._find(parent, path, source)
        if isinstance(parent, str):
            self._add(f"extends: more than {_MAX_CHAIN} profiles build on each other", "use fewer", source)
        elif parent is not None:
            self._add("extends: expected the name of one profile", "extends: default", source)
        return None

    def _find(self, ref: str, child: Path | None, source: Source | None) -> tuple[Path, str] | None:
        """The file of ``ref`` and its name in messages, or ``None`` and a problem."""
        found = self._by_path(ref, child) if is_path(ref) else self._by_name(ref, child)
        extends = "extends: " if child else ""
        if not found:
            self._add(f"{extends}there is no profile {shown(ref)}", self._instead(ref), source)
            return None
        # A name that is in the chain already means another file of that name: a user's own `default` that extends
        # `default` means the shipped one.
        for path, name in found:
            if path not in self.paths:
                return path, name
        self._add(f"{extends}{shown(ref)} extends itself", "remove one of the extends:", source)
        return None

    def _by_path(self, ref: str, child: Path | None) -> list[tuple[Path, str]]:
        try:
            path = Path(ref).expanduser()
        except RuntimeError:  # ~user of an unknown user
            return []
        path = child.parent / path if child else path
        if not is_file(path):
            return []
        found = path.resolve()
        return [(found, masked(str(found if child else path)))]

    def _by_name(self, ref: str, child: Path | None) -> list[tuple[Path, str]]:
        # Shipped profiles extend only shipped ones, so a user's own `default` may extend any of them.
        shipped = child is not None and child.parent == profiles_dir()
        directories = (profiles_dir(),) if shipped else (self.user_dir, profiles_dir())
        paths = [directory / (ref + suffix) for directory in directories for suffix in SUFFIXES]
        named = paths if NAME.fullmatch(ref) else []
        return [
            (path.resolve(), path.name if path.parent == profiles_dir() else str(path))
            for path in named
            if is_file(path)
        ]

    def _instead(self, ref: str) -> str:
        names = [profile.name for profile in available(self.user_dir)]
        if "://" in ref:
            return "give a name or a file, not an address"
        if not self.paths and NAME.fullmatch(ref):  # of the command line
            for suffix in SUFFIXES:
                if is_file(Path(ref + suffix)):
                    return f"give the file with its suffix: --profile {ref}{suffix}"
        return did_you_mean(Path(ref).stem if is_path(ref) else ref, names) or "list the profiles: deployer profiles"

    def _add(self, message: str, hint: str, source: Source | None) -> None:
        self.problems.append(Problem(message=message, hint=hint, source=source))
