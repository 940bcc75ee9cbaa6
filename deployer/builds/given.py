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
    """How a builder gives it to the steps of one build file.

    ``text``: of the changed build file. ``secrets``: contents by the id of the builder's secret. ``arguments``: build
    arguments. ``proxies``: build arguments whose values belong in no command line.
    """

    text: str
    secrets: Mapping[str, bytes] = field(repr=False)
    arguments: Mapping[str, str]
    proxies: Mapping[str, str] = field(repr=False)

    def options(self, directory: Path, *, inherits: bool) -> tuple[str, ...]:
        """Options of the builder, in whose environment ``proxies`` are. ``directory``: has a file for each secret."""
        return (
            *(f"--secret=id={name},src={directory / name}" for name in self.secrets),
            *(f"--build-arg={name}={value}" for name, value in self.arguments.items()),
            *(f"--build-arg={name}" for name in self.proxies if not inherits),
        )


def passed(given: Given, text: str, builder: Builder) -> Passed:
    """How ``builder`` gives it to the steps of the build file ``text``."""
    secrets = dict(given.files) if builder.secrets else {}
    settings, proxies = given.settings, given.proxies
    if builder.variables:
        for name, value in {**settings, **proxies}.items():
            secrets[Secret(id=f"deployer-{name}", variable=name)] = value.encode()
        settings, proxies = {}, {}
    return Passed(
        text=dockerfile.with_arguments(dockerfile.with_secrets(text, tuple(secrets)), tuple(settings)),
        secrets={secret.id: content for secret, content in secrets.items()},
        arguments=settings,
        proxies=proxies,
    )
