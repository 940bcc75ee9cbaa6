"""Wheels by pip of deployer's own Python, from the index of this host's pip. Nothing is built."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from deployer.errors import EngineUnreachable, ImageUnavailable
from deployer.host.gather import proxies
from deployer.host.runner import Runner
from deployer.protocol import OWN_PYTHON, parsed

PATIENCE = 600.0
"""Seconds for one run of pip."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Pythons that an image may have: a wheel with compiled code is another file for each."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A file of a release, and its SHA-256."""

    file: str
    sha256: str

    @property
    def is_pure(self) -> bool:
        """Whether every Python and every platform takes this file."""
        return self.file.endswith("-none-any.whl")


@dataclass(frozen=True, kw_only=True)
class Pip:
    """``directory``: temporary, and closed to others."""

    directory: Path
    env: Mapping[str, str] = field(repr=False)

    def resolve(self, pins: Sequence[str], *, constraints: Sequence[str]) -> dict[str, Wheel]:
        """All that ``pins`` need, by NAME==VERSION. Raises ImageUnavailable."""
        limits = self._file("constraints.txt", constraints)
        words = ("--ignore-installed", "--constraint", str(limits), "--requirement", str(self._file("pins.txt", pins)))
        return self._report(*words, what=" ".join(pins))

    def others(self, pin: str) -> Iterator[Wheel]:
        """The wheels of one version for other Pythons on the Linux of this machine."""
        from deployer.selection.targets import Target

        for python in PYTHONS:
            tags = Target(python, f"{platform.machine()}-unknown-linux-gnu").platform_tags
            words = ["--no-deps", "--target", str(self.directory / "nothing"), "--python-version", python]
            words += [word for tag in tags for word in ("--platform", tag)]
            with suppress(ImageUnavailable):  # there is none for that Python
                yield self._report(*words, "--implementation", "cp", "--", pin, what=pin)[pin]

    def install(self, lock: str, target: Path) -> None:
        """Install what ``lock`` names into the directory ``target``. Raises ImageUnavailable."""
        path = self._file("plugins.txt", [lock])
        self._run("--no-deps", "--require-hashes", "--target", str(target), "--requirement", str(path), what="the lock")
        target.mkdir(exist_ok=True)

    def _report(self, *words: str, what: str) -> dict[str, Wheel]:
        from packaging.utils import canonicalize_name

        found: dict[str, Wheel] = {}
        for item in parsed(self._run("--dry-run", "--report", "-", *words, what=what))["install"]:
            pin = f"{canonicalize_name(item['metadata']['name'])}=={item['metadata']['version']}"
            download = item["download_info"]
            file = download["url"].partition("#")[0].rpartition("/")[2]
            found[pin] = Wheel(file=file, sha256=download["archive_info"]["hashes"]["sha256"])
        return found

    def _run(self, *words: str, what: str) -> str:
        pip = (*OWN_PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet")
        done = Runner().run((*pip, "--only-binary", ":all:", *words), timeout=PATIENCE, env=self.env)
        if done.returncode:
            said = tuple(line for line in done.stderr.strip().splitlines() if line.strip())
            raise ImageUnavailable(
                f"pip finds no wheels for {what}",
                hint="correct server.plugins, or the index of this host's pip: pip config debug",
                details=said[-8:],
            )
        return done.stdout

    def _file(self, name: str, lines: Sequence[str]) -> Path:
        path = self.directory / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


@contextmanager
def pip_wheels() -> Iterator[Pip]:
    """pip, which reads the address of the index from a private file. Raises EngineUnreachable when there is none."""
    from deployer.clients import pip
    from deployer.clients.client import Account
    from deployer.clients.installers import own_environment
    from deployer.operations.prepare import is_ours

    settings = pip.build_settings(pip.read_config(Account.of(os.environ)), ours=is_ours)
    keys = {"index-url": "index_url", "proxy": "proxy", "cert": "cert", "timeout": "timeout"}
    # A line break would begin a key of its own.
    said = {key: "".join(str(settings[name] or "").split()) for key, name in keys.items()}
    with TemporaryDirectory(prefix="deployer-plugins-") as made:
        directory = Path(made)
        lines = ["[global]", *(f"{key} = {value}" for key, value in said.items() if value), ""]
        (directory / "pip.conf").write_text("\n".join(lines), encoding="utf-8")
        env = {**own_environment(directory), **proxies(os.environ), "PIP_CONFIG_FILE": str(directory / "pip.conf")}
        if Runner().run((*OWN_PYTHON, "-m", "pip", "--version"), env=env).returncode:
            raise EngineUnreachable(f"{sys.executable} has no pip", hint=f"{sys.executable} -m ensurepip")
        yield Pip(directory=directory, env=env)
