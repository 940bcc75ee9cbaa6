"""What installers resolve from an index: they are run, and install nothing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from deployer.host.runner import Runner
from deployer.protocol import OWN_PYTHON, parsed

PATIENCE = 120.0  # seconds for one installer


def probe(simple_url: str, project: str) -> dict[str, str]:
    """For each installer on this host, return the ``user/index`` whose file it would install; empty for none.

    Only wheels count: for the metadata of a source distribution, an installer runs its code.
    """
    with TemporaryDirectory(prefix="deployer-audit-") as directory:
        env = own_environment(Path(directory))
        found: dict[str, str] = {}
        if _has_pip(env):
            found["pip"] = _origin(_pip(simple_url, project, env), simple_url)
        if (uv := uv_program()) is not None:
            found["uv"] = _origin(_uv_lock(uv, simple_url, project, env, Path(directory)), simple_url)
        return found


def install(simple_url: str, wheel: str) -> str | None:
    """Have pip install one wheel into a scratch directory, without its dependencies and whatever platform it is for.

    Returns what pip said when it failed, an empty text otherwise; None where there is no pip.
    """
    from packaging.utils import parse_wheel_filename

    project, version, *_ = parse_wheel_filename(wheel)
    interpreter, abi, platform = wheel.removesuffix(".whl").split("-")[-3:]
    with TemporaryDirectory(prefix="deployer-verify-") as directory:
        env = {"PATH": os.environ.get("PATH", ""), "HOME": directory, "PIP_CONFIG_FILE": os.devnull}
        if not _has_pip(env):
            return None
        words = [*OWN_PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "install", "--quiet"]
        words += ["--retries", "0", "--no-deps", "--only-binary", ":all:", "--target", f"{directory}/target"]
        words += ["--python-version", interpreter.split(".")[-1].lstrip("cpy") or "3", "--implementation"]
        words += [interpreter[:2], "--abi", abi.split(".")[0], "--platform", platform.split(".")[0]]
        words += ["--ignore-requires-python", "--index-url", simple_url, "--", f"{project}=={version}"]
        done = Runner().run(words, timeout=PATIENCE, env=env)
        return (done.stderr or f"exit code {done.returncode}") if done.returncode else ""


def _has_pip(env: Mapping[str, str]) -> bool:
    return Runner().run((*OWN_PYTHON, "-m", "pip", "--version"), env=env).returncode == 0


def _pip(simple_url: str, project: str, env: Mapping[str, str]) -> str:
    words = [*OWN_PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "install", "--quiet"]
    words += ["--retries", "0", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary", ":all:"]
    words += ["--report", "-", "--index-url", simple_url, "--", project]
    done = Runner().run(words, timeout=PATIENCE, env=env)
    if done.returncode:
        return ""
    (item,) = parsed(done.stdout)["install"]
    return str(item["download_info"]["url"])


def own_environment(home: Path) -> dict[str, str]:
    """The environment of an installer that reads no configuration of this user."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    # pip passes its variables on to the pip that installs what a build needs, and its options not all.
    plain = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_NO_CONFIG": "1"}
    return {**kept, **plain, "HOME": str(home)}


def uv_program() -> str | None:
    """The uv beside deployer's own Python, else the one on the path."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _uv_lock(uv: str, simple_url: str, project: str, env: Mapping[str, str], directory: Path) -> str:
    import tomllib

    wanted, lock = directory / "wanted.in", directory / "pylock.toml"
    wanted.write_text(f"{project}\n", encoding="utf-8")
    words = [uv, "pip", "compile", "--quiet", "--no-cache", "--no-deps", "--no-build", "--python", sys.executable]
    words += ["--default-index", simple_url, "--output-file", str(lock), str(wanted)]
    done = Runner().run(words, timeout=PATIENCE, env={**env, "UV_HTTP_RETRIES": "0"})
    if done.returncode or not lock.exists():
        return ""
    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]
    return str(packages[0]["wheels"][0]["url"]) if packages and packages[0].get("wheels") else ""


def _origin(url: str, simple_url: str) -> str:
    """``user/index`` of a file of our server; the host of any other file."""
    parts, ours = urlsplit(url), urlsplit(simple_url)
    if not url or parts.netloc != ours.netloc:
        return parts.netloc
    prefix = ours.path.rpartition("/+simple")[0].rpartition("/")[0].rpartition("/")[0]
    return "/".join(parts.path.removeprefix(prefix).strip("/").split("/")[:2])
