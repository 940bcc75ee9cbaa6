"""uv and pip, run to resolve for a Python and a platform, or to install into a directory that is thrown away."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployer.clients.installers import own_environment, uv_program
from deployer.errors import VerificationError
from deployer.host.runner import Runner
from deployer.protocol import OWN_PYTHON, parsed
from deployer.selection import Wanted
from deployer.selection.targets import Target

PATIENCE = 1800.0
"""Seconds for one resolution: the first one waits for the upstream's pages."""


@dataclass(frozen=True, kw_only=True)
class Resolver:
    """``uv``: its program, empty for pip. ``directory``: temporary, for both. ``around``: words before its."""

    uv: str
    directory: Path
    around: tuple[str, ...] = ()

    @classmethod
    def of(cls, directory: Path, *, around: tuple[str, ...] = ()) -> Resolver:
        """uv if it is installed, beside deployer or on the path; else the pip of deployer's own Python."""
        return cls(uv=uv_program() or "", directory=directory, around=around)

    @property
    def name(self) -> str:
        return "uv" if self.uv else "pip"

    def resolve(self, requirements: Path, target: Target, *, simple_url: str, what: str = "") -> tuple[Wanted, ...]:
        """The versions that a file of requirements, or a ``pyproject.toml``, needs. ``what``: its name in messages.

        Raises VerificationError with what the program said.
        """
        words = self._uv_words(requirements, target) if self.uv else self._pip_words(requirements, target)
        env = {**own_environment(self.directory), "UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_RETRIES": "1"}
        url = ("--default-index" if self.uv else "--index-url", simple_url)
        done = Runner().run((*self.around, *words, *url), timeout=PATIENCE, env=env)
        if done.returncode:
            said = tuple(line for line in done.stderr.strip().splitlines() if line.strip())
            raise VerificationError(
                f"{self.name} can't resolve {what or requirements.name} for {target.text}",
                hint=f"correct {requirements}, or name another --python or --platform",
                details=said[-12:],
            )
        return _pinned(done.stdout) if self.uv else _installed(done.stdout)

    def _uv_words(self, requirements: Path, target: Target) -> Sequence[str]:
        words = [self.uv, "pip", "compile", "--quiet", "--no-cache", "--no-header", "--no-annotate"]
        words += ["--python", OWN_PYTHON[0], "--python-version", target.python]
        words += ["--python-platform", target.platform] if target.platform else []
        return [*words, str(requirements)]

    def _pip_words(self, requirements: Path, target: Target) -> Sequence[str]:
        words = [*OWN_PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "install", "--quiet"]
        words += [
            "--dry-run",
            "--ignore-installed",
            "--report",
            "-",
            "--requirement",
            str(_plain(requirements, self.directory)),
        ]
        if target.is_elsewhere:
            words += ["--only-binary", ":all:", "--target", str(self.directory / "nothing")]
            words += ["--python-version", target.python, "--implementation", "cp"]
            words += [word for tag in target.platform_tags for word in ("--platform", tag)]
        return words


def _plain(requirements: Path, directory: Path) -> Path:
    """A file that pip reads: of a ``pyproject.toml``, its dependencies. Raises VerificationError."""
    if requirements.suffix != ".toml":
        return requirements
    plain = directory / "requirements.in"
    plain.write_text("\n".join(dependencies(requirements)) + "\n", encoding="utf-8")
    return plain


def dependencies(project: Path) -> tuple[str, ...]:
    """The dependencies of a ``pyproject.toml``. Raises VerificationError when they can't be read."""
    try:
        table = tomllib.loads(project.read_text(encoding="utf-8")).get("project")
        found = table.get("dependencies", []) if isinstance(table, dict) else None
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise VerificationError(f"{project}: no list of dependencies can be read", hint="name a requirements file")
    return tuple(found)


def _pinned(text: str) -> tuple[Wanted, ...]:
    """What ``uv pip compile`` printed. What comes from no index is left out."""
    from deployer.selection.requirements import parse

    lines = [line for line in text.splitlines() if " @ " not in line and not line.startswith(("-", "."))]
    return tuple(parse("\n".join(lines), Path("uv pip compile")))


def _installed(text: str) -> tuple[Wanted, ...]:
    """What pip's report names. What comes from no index is left out."""
    found: list[Mapping[str, Mapping[str, str]]] = parsed(text)["install"]
    from packaging.utils import canonicalize_name

    return tuple(
        Wanted(project=canonicalize_name(item["metadata"]["name"]), version=item["metadata"]["version"])
        for item in found
        if not item.get("is_direct")
    )


@dataclass(frozen=True, kw_only=True)
class Installer:
    """pip or uv, which install into a directory below ``directory``. ``words``: the command, up to its options."""

    name: str
    words: tuple[str, ...]
    index_option: str
    directory: Path

    def install(
        self, requirements: Path, *, around: tuple[str, ...], simple_url: str, is_whole: bool
    ) -> tuple[str, ...] | None:
        """Install; None when it succeeded, else the last lines of what it said.

        ``around``: words before the program's. ``is_whole``: the file names all dependencies.
        """
        target = self.directory / f"installed-by-{self.name}"
        words = [*self.words, "--target", str(target), self.index_option, simple_url]
        words += [*(("--no-deps",) if is_whole else ()), "--requirement", str(self._readable(requirements))]
        env = {**own_environment(self.directory), "UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_RETRIES": "0"}
        done = Runner().run((*around, *words), timeout=PATIENCE, env=env)
        said = tuple(line for line in done.stderr.strip().splitlines() if line.strip())
        return said[-12:] if done.returncode else None

    def _readable(self, requirements: Path) -> Path:
        return _plain(requirements, self.directory) if self.name == "pip" else requirements


def installers(directory: Path) -> tuple[Installer, ...]:
    """pip of deployer's own Python, and uv if it is installed. ``directory``: temporary."""
    pip = (*OWN_PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "--no-input", "--retries", "0")
    found = [
        Installer(
            name="pip",
            words=(*pip, "install", "--quiet", "--no-compile", "--ignore-installed"),
            index_option="--index-url",
            directory=directory,
        )
    ]
    if uv := uv_program():
        words = (uv, "pip", "install", "--quiet", "--no-cache", "--python", OWN_PYTHON[0])
        found.append(Installer(name="uv", words=words, index_option="--default-index", directory=directory))
    return tuple(found)
