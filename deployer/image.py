"""Our own server image: its name, what it is built from, and the build context with what this host's pip needs.

The context holds no secret. An index address with credentials reaches pip in a build secret, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from deployer.errors import ImageUnavailable, Refused
from deployer.resources import templates_dir
from deployer.secrets import mask_url
from deployer.spec import LABEL_BASE, LABEL_BUILD, BuildRequest

DEFAULT_BASE = "python:3.13.9-slim-bookworm"
"""Any image with Python 3.11 or newer and its venv module will do."""
BUILD_LOCK = "build-requirements.txt"
PLUGINS_LOCK = "plugins.txt"
LOCKS = {"6": "requirements-6.txt", "7": "requirements-7.txt"}
"""Of each major version of devpi-server that our image can have: what is installed, in ``templates/image``."""
DEFAULT_MAJOR = "6"
REPOSITORY = "localhost/deployer-devpi"
_PACKAGE = Path(__file__).resolve().parent
# What an engine takes for an image; anything else could end the line that it stands on.
_REFERENCE = r"[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,254}"
_LOCKED = re.compile(r"^devpi-server==(\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class PipSettings:
    """What pip needs on this host to reach its index; ``cert`` is the path of a CA bundle, ``timeout`` in seconds."""

    index_url: str = ""
    cert: str = ""
    proxy: str = ""
    timeout: int | None = None

    @property
    def secret(self) -> bool:
        """Whether the address of the index or of the proxy holds credentials."""
        return any(mask_url(url) != url for url in (self.index_url, self.proxy))


@cache
def server_version(major: str = DEFAULT_MAJOR) -> str:
    """The version of devpi-server that is locked for the image."""
    found = _LOCKED.search((templates_dir() / "image" / LOCKS[major]).read_text(encoding="utf-8"))
    if found is None:
        raise AssertionError(f"templates/image/{LOCKS[major]} locks no devpi-server")
    return found.group(1)


def reference(major: str = DEFAULT_MAJOR, plugins: str = "") -> str:
    """The name of our image, with the version of the server that is in it. ``plugins``: the lock of its plugins."""
    which = f"-{hashlib.sha256(plugins.encode()).hexdigest()[:12]}" if plugins else ""
    return f"{REPOSITORY}:{server_version(major)}{which}"


def _sources() -> tuple[tuple[str, Path], ...]:
    """What is copied into the image of our own code, by its path in the context."""
    server = _PACKAGE / "server"
    shown = (path for kind in ("templates", "static") for path in sorted((server / "web" / kind).rglob("*.*")))
    files = (
        _PACKAGE / "__init__.py",
        _PACKAGE / "distribution.py",
        *sorted((_PACKAGE / "protocol").glob("*.py")),
        *sorted([*server.rglob("*.py"), *server.rglob("*.template"), *shown]),
    )
    return tuple((str(Path("deployer") / path.relative_to(_PACKAGE)), path) for path in files)


def _locks(major: str) -> tuple[tuple[str, Path], ...]:
    """The lock files, by their names in the context."""
    templates = templates_dir() / "image"
    return ((BUILD_LOCK, templates / BUILD_LOCK), ("requirements.txt", templates / LOCKS[major]))


def is_with_plugins(ref: str) -> bool:
    """Whether it is the name of an image of ours with plugins: a profile's alone, unlike that without."""
    return re.fullmatch(rf"{re.escape(REPOSITORY)}:\S+-[0-9a-f]{{12}}", ref) is not None


def locked_versions(major: str = DEFAULT_MAJOR) -> tuple[str, ...]:
    """What is in our image without plugins, as NAME==VERSION."""
    text = (templates_dir() / "image" / LOCKS[major]).read_text(encoding="utf-8")
    return tuple(re.findall(r"^([a-z0-9-]+==[^\s;]+)", text, re.MULTILINE))


def build_digest(base: str, major: str = DEFAULT_MAJOR, plugins: str = "") -> str:
    """Digest of everything that an image on ``base`` (empty: the default one) is built from.

    ``plugins``: the lock of its plugins.
    """
    digest = hashlib.sha256((base or DEFAULT_BASE).encode())
    named = (("Dockerfile", templates_dir() / "image" / "Dockerfile.j2"), *_locks(major))
    for name, path in (*named, *_sources()):
        digest.update(f"\0{name}\0".encode() + path.read_bytes())
    if plugins:
        digest.update(f"\0{PLUGINS_LOCK}\0{plugins}".encode())
    return digest.hexdigest()


def dockerfile(*, base: str, cert: bool, secret: bool, major: str = DEFAULT_MAJOR, plugins: bool = False) -> str:
    """The build file.

    ``cert``: there is a CA bundle in the context, ``secret``: pip.conf is a build secret, ``plugins``: there is a lock
    of plugins in the context.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates_dir()),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - not HTML; the only free values are a checked reference and JSON
        keep_trailing_newline=True,
    )
    environment.filters["json"] = json.dumps
    template = environment.get_template("image/Dockerfile.j2")
    return template.render(base=base, cert=cert, secret=secret, plugins=plugins, version=server_version(major))


def prepare(
    directory: Path,
    *,
    base: str,
    pip: PipSettings,
    secrets_ok: bool,
    major: str = DEFAULT_MAJOR,
    plugins: str = "",
    from_environment: Sequence[str] = (),
    found_base: str = "",
) -> BuildRequest:
    """Write the build context to ``directory`` (empty, and ours alone).

    ``secrets_ok``: the engine can give a build step a file that stays in no layer. ``plugins``: the lock of its
    plugins. ``from_environment``: names of variables that the build gets from this program's environment; a proxy of
    pip wins. ``found_base``: digest or ID of the base that the engine has. Raises Refused where an index with
    credentials would need that, ImageUnavailable when the CA bundle can't be read.
    """
    if pip.secret and not secrets_ok:
        raise Refused(
            f"pip needs credentials ({_masked(pip)}), which this engine's build would show or keep",
            hint="install BuildKit (docker's buildx), or set PIP_INDEX_URL and PIP_PROXY without credentials",
        )
    if not re.fullmatch(_REFERENCE, base):
        raise Refused(f"{base!r} is no image reference", hint="name the base as the engine would: NAME[:TAG]")
    context = directory / "context"
    for name, path in _sources():
        target = context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for name, path in _locks(major):
        shutil.copyfile(path, context / name)
    if plugins:
        (context / PLUGINS_LOCK).write_text(plugins, encoding="utf-8")
    text = dockerfile(base=base, cert=bool(pip.cert), secret=pip.secret, major=major, plugins=bool(plugins))
    (context / "Dockerfile").write_text(text, encoding="utf-8")
    if pip.cert:
        try:
            shutil.copyfile(pip.cert, context / "ca.pem")
        except OSError as error:
            raise ImageUnavailable(
                f"the CA bundle {pip.cert} can't be read: {error.strerror}", hint="correct pip's cert setting"
            ) from None
    return BuildRequest(
        context=context,
        tag=reference(major, plugins),
        build_args=_build_args(pip),
        from_environment=() if pip.proxy else tuple(from_environment),
        labels=(
            (LABEL_BUILD, build_digest(base if base != DEFAULT_BASE else "", major, plugins)),
            *(((LABEL_BASE, found_base),) if found_base else ()),
        ),
        secrets=_secrets(directory, pip),
    )


def _masked(pip: PipSettings) -> str:
    return ", ".join(mask_url(url) for url in (pip.index_url, pip.proxy) if "@" in url)


def _build_args(pip: PipSettings) -> tuple[tuple[str, str], ...]:
    args = {"BUILT_AT": datetime.now(UTC).isoformat(timespec="seconds")}
    if pip.timeout:
        args["PIP_DEFAULT_TIMEOUT"] = str(pip.timeout)
    if pip.index_url and not pip.secret:
        args["PIP_INDEX_URL"] = pip.index_url
    if pip.proxy and not pip.secret:
        # Predefined arguments: no ARG line is needed, and `history` does not show them.
        args |= {"HTTP_PROXY": pip.proxy, "HTTPS_PROXY": pip.proxy}
    return tuple(args.items())


def _secrets(directory: Path, pip: PipSettings) -> tuple[tuple[str, Path], ...]:
    if not pip.secret:
        return ()
    settings = {"index-url": pip.index_url, "proxy": pip.proxy}
    # A line break would begin a key of its own.
    lines = [f"{key} = {''.join(value.split())}" for key, value in settings.items() if value]
    path = directory / "pip.conf"
    path.touch(mode=0o600)
    path.write_text("\n".join(["[global]", *lines, ""]), encoding="utf-8")
    return (("pip_conf", path),)
