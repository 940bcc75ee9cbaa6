"""What the steps of a build get and the image does not keep, and how each kind of builder is given it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deployer.builds import dockerfile
from deployer.builds.builders import Builder
from deployer.builds.dockerfile import Secret


@dataclass(frozen=True, kw_only=True)
class Given:
    """What steps get.

    ``files``: contents of files. ``settings``: variables with the same values in every build, which a builder may keep
    in the history where it has no other way. ``proxies``: variables that differ from build to build, of those that no
    builder keeps: https://docs.docker.com/reference/dockerfile/#predefined-args.
    """

    files: Mapping[Secret, bytes] = field(default_factory=dict, repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Passed:
    """``text``: of the changed build file. ``files``: contents of files in a directory of the build. ``words``:
    options of the builder; ``env``: variables of it, with what is in no command line."""

    text: str
    files: Mapping[str, bytes] = field(repr=False)
    words: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)


def passed(given: Given, text: str, *, builder: Builder, directory: Path) -> Passed:
    """How ``builder`` gives it to the steps of the build file ``text``. ``directory``: where the files will be."""
    secrets = dict(given.files) if builder.secrets else {}
    settings, proxies = dict(given.settings), dict(given.proxies)
    if builder.variables:
        secrets |= {
            Secret(id=f"deployer-{name}", variable=name): value.encode()
            for name, value in {**settings, **proxies}.items()
        }
        settings, proxies = {}, {}
    return Passed(
        text=dockerfile.with_arguments(dockerfile.with_secrets(text, tuple(secrets)), tuple(settings)),
        files={secret.id: content for secret, content in secrets.items()},
        words=(
            *(f"--secret=id={secret.id},src={directory / secret.id}" for secret in secrets),
            *(f"--build-arg={name}={value}" for name, value in settings.items()),
            *(f"--build-arg={name}" for name in proxies if not builder.inherits),
        ),
        env=proxies,
    )
