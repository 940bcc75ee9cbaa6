"""The arguments of a build, as the user typed them: its file, its context, its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# All other options of docker, podman, buildah and nerdctl take a value.
_FLAGS = frozenset(
    [
        "--all-platforms",
        "--check",
        "--compress",
        "--debug",
        "--disable-compression",
        "--disable-content-trust",
        "--force-rm",
        "--help",
        "--http-proxy",
        "--identity-label",
        "--inherit-annotations",
        "--inherit-labels",
        "--layer-label",
        "--layers",
        "--load",
        "--no-cache",
        "--no-hostname",
        "--no-hosts",
        "--omit-history",
        "--pull",
        "--pull-always",
        "--pull-never",
        "--push",
        "--quiet",
        "--rm",
        "--rusage",
        "--save-stages",
        "--skip-unused-stages",
        "--squash",
        "--squash-all",
        "--stdin",
        "--stream",
        "--tls-verify",
        "-D",
        "-h",
        "-q",
    ]
)
_FILE = ("-f", "--file")
_NETWORK = ("--network", "--net")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """``words``: all but the option of the file. ``file``: empty for the default one; ``context``: empty for none;
    ``network``: empty for the builder's own. ``given``: names of the build arguments."""

    words: tuple[str, ...]
    file: str
    context: str
    network: str
    given: frozenset[str] = frozenset()


def read(words: Sequence[str]) -> Arguments:
    """Read the arguments of a build. ``words``: those after ``docker build``."""
    kept: list[str] = []
    named: set[str] = set()
    file = context = network = ""
    left = list(words)
    while left:
        word = left.pop(0)
        name, given, value = word.partition("=")
        whole = [word]
        if word == "--":
            kept += ["--", *left]
            context = left[0] if left else context
            break
        if not word.startswith("-") or word == "-":
            context = word
            kept.append(word)
            continue
        if not given and not name.startswith("--") and len(name) > 2 and name[:2] in _FILE:
            name, value = name[:2], name[2:]  # -fDockerfile
        elif not given and name not in _FLAGS and left:
            value = left.pop(0)
            whole.append(value)
        if name in _FILE:
            file = value
            continue
        if name in _NETWORK:
            network = value
        if name == "--build-arg":
            named.add(value.partition("=")[0])
        kept += whole
    return Arguments(words=tuple(kept), file=file, context=context, network=network, given=frozenset(named))
