"""What we say that pip will do, against what pip does."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployer.clients import pip
from deployer.clients.pip.places import user_file
from deployer.errors import ClientFileError

URL = "http://127.0.0.1:3141/root/dev/+simple/"
CORP = "https://pip.corp.example.com/simple"
SETTINGS = pip.PipSettings(index_url=URL, timeout=60)

# What the installing command's own parser makes of files and variables: exactly what pip would use.
ASK = """
import sys
from pip._internal.commands import create_command
from pip._internal.configuration import Configuration
values = create_command("install").parser.get_default_values()
config = Configuration(isolated=False)
config.load()
sys.stdout.write(repr((dict(config.items()), values.index_url, values.timeout, values.extra_index_urls, values.cert)))
"""


class Host:
    """A home, a venv without any program in it, system-wide files, and the environment that leads to them."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.venv = root / "venv"
        self.xdg = root / "xdg"
        self.state = root / "state"
        for folder in (self.home, self.venv / "bin", self.xdg):
            folder.mkdir(parents=True)
        self.env = {"HOME": str(self.home), "PATH": os.defpath, "XDG_CONFIG_DIRS": str(self.xdg)}

    def write(self, place: str, text: str) -> Path:
        path = {
            "global": self.xdg / "pip" / "pip.conf",
            "legacy": self.home / ".pip" / "pip.conf",
            "user": user_file(self.env, home=self.home),
            "venv": self.venv / "pip.conf",
            "chosen": self.home / "chosen.conf",
        }[place]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def activate(self) -> None:
        """Make the venv one that python takes for one: its home is the python that runs this."""
        shutil.rmtree(self.venv)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.venv)], check=True)
        self.env |= {"VIRTUAL_ENV": str(self.venv), "PATH": f"{self.venv}/bin:{os.defpath}"}

    def read(self) -> pip.PipConfig:
        prefix = self.venv if "VIRTUAL_ENV" in self.env else Path(sys.prefix)
        return pip.read_config(self.env, prefix=prefix, state=self.state)

    def ask(self) -> subprocess.CompletedProcess[str]:
        python = self.venv / "bin" / "python" if "VIRTUAL_ENV" in self.env else sys.executable
        import pip as real

        return subprocess.run(
            [python, "-c", f"import sys; sys.path.append({str(Path(real.__file__).parents[1])!r})\n{ASK}"],
            env=self.env,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture(scope="module")
def pips_default(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The index that pip uses when it was told nothing."""
    host = Host(tmp_path_factory.mktemp("bare"))
    host.env["PIP_CONFIG_FILE"] = os.devnull
    return str(ast.literal_eval(host.ask().stdout)[1])


LAYOUTS: dict[str, tuple[dict[str, str], dict[str, str], bool]] = {
    "nothing": ({}, {}, False),
    "each file alone": ({"user": "[global]\nindex-url = a\ntimeout = 3\n"}, {}, False),
    "user over legacy over global": (
        {
            "global": "[global]\nindex-url = a\ntimeout = 1\ncert = /g\n",
            "legacy": "[global]\nindex_url = b\ntimeout = 2\n",
            "user": "[global]\nINDEX-URL: c\n",
        },
        {},
        False,
    ),
    "venv over user": ({"user": "[global]\nindex-url = a\n", "venv": "[global]\nindex-url = b\n"}, {}, True),
    "venv that is not active": ({"user": "[global]\nindex-url = a\n", "venv": "[global]\nindex-url = b\n"}, {}, False),
    "a command's section of a weaker file": (
        {"global": "[install]\nindex-url = a\n", "user": "[global]\nindex-url = b\n[download]\nindex-url = c\n"},
        {},
        False,
    ),
    "variables": (
        {"user": "[global]\nindex-url = a\n[install]\ntimeout = 4\n"},
        {"PIP_INDEX_URL": "b", "PIP_TIMEOUT": "9"},
        False,
    ),
    "empty variable": ({"user": "[global]\nindex-url = a\n"}, {"PIP_INDEX_URL": ""}, False),
    "empty value hides a weaker one": (
        {"global": "[global]\nindex-url = a\n", "user": "[global]\nindex-url =\n"},
        {},
        False,
    ),
    "PIP_CONFIG_FILE": (
        {
            "global": "[global]\ntimeout = 1\n",
            "user": "[global]\nindex-url = a\n",
            "venv": "[global]\nindex-url = b\n",
            "chosen": "[global]\nindex-url = c\n",
        },
        {"PIP_CONFIG_FILE": "chosen"},
        True,
    ),
    "PIP_CONFIG_FILE that is not there": (
        {"user": "[global]\nindex-url = a\n"},
        {"PIP_CONFIG_FILE": "/nonexistent"},
        False,
    ),
    "PIP_CONFIG_FILE that is the user's": ({"user": "[global]\nindex-url = a\n"}, {"PIP_CONFIG_FILE": "user"}, False),
    "PIP_CONFIG_FILE=/dev/null": (
        {"user": "[global]\nindex-url = a\n", "venv": "[global]\nindex-url = b\n"},
        {"PIP_CONFIG_FILE": os.devnull, "PIP_TIMEOUT": "3"},
        True,
    ),
    "aliases, file": ({"user": "[global]\ntimeout = 3\ndefault-timeout = 4\nindex-url = a\npypi-url = b\n"}, {}, False),
    "aliases, other order": (
        {"user": "[global]\ndefault-timeout = 4\ntimeout = 3\npypi_url = b\n--index-url = a\n"},
        {},
        False,
    ),
    "an alias of a weaker file that is named later": (
        {"global": "[global]\ntimeout = 1\ndefault-timeout = 2\n", "user": "[global]\ntimeout = 3\n"},
        {},
        False,
    ),
    "aliases, variables": ({}, {"PIP_DEFAULT_TIMEOUT": "180", "PIP_PYPI_URL": "a"}, False),
    "DEFAULT section": ({"user": "[DEFAULT]\nindex-url = a\n[global]\ntimeout = 3\n[install]\nuser = no\n"}, {}, False),
    "Global is another section": ({"user": "[Global]\nindex-url = a\n"}, {}, False),
    "syntax": (
        {"user": "# c\n[global]\n; c\nindex-url = a ; b\nextra-index-url =\n  x\n  # c\n\n  y\ncert = /%(x)s/%d\n"},
        {},
        False,
    ),
    "XDG_CONFIG_HOME": ({"user": "[global]\nindex-url = a\n"}, {"XDG_CONFIG_HOME": "elsewhere"}, False),
    "XDG_CONFIG_HOME blank": ({"user": "[global]\nindex-url = a\n"}, {"XDG_CONFIG_HOME": " "}, False),
}


@pytest.mark.parametrize(("files", "variables", "active"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_as_pip_reads_it(
    host: Host, files: dict[str, str], variables: dict[str, str], active: bool, pips_default: str
) -> None:
    if active:
        host.activate()
    elif "venv" in files:
        shutil.rmtree(host.venv / "bin")
    if variables.get("XDG_CONFIG_HOME", "").strip():
        host.env["XDG_CONFIG_HOME"] = str(host.home / variables["XDG_CONFIG_HOME"])
    paths = {place: host.write(place, text) for place, text in files.items()}
    for name, value in variables.items():
        if name != "XDG_CONFIG_HOME" or not value.strip():
            host.env[name] = str(paths.get(value, value))
    done = host.ask()
    assert done.returncode == 0, done.stderr
    items, index_url, timeout, extra, cert = ast.literal_eval(done.stdout)
    config = host.read()
    assert config.items() == items
    assert config.value("index-url") == (index_url if index_url != pips_default else "")
    assert float(config.value("timeout") or 15) == timeout
    assert config.value("extra-index-url").split() == extra
    assert (config.value("cert") or None) == cert


@pytest.mark.parametrize("content", [b"[global]\n# \xe9\n", b"index-url = a\n", b"\xef\xbb\xbf[global]\n"])
def test_pip_stops_where_we_say(host: Host, content: bytes) -> None:
    host.write("user", "").write_bytes(content)
    assert host.ask().returncode != 0
    (warning,) = host.read().warnings
    assert "no pip command works" in warning and str(host.home) in warning


def test_what_pip_cant_open_it_passes_over(host: Host) -> None:
    user_file(host.env, home=host.home).mkdir(parents=True)
    done = host.ask()
    assert done.returncode == 0 and ast.literal_eval(done.stdout)[0] == host.read().items()


def test_the_source_is_told(host: Host) -> None:
    path = host.write("user", f"[global]\nindex-url = {CORP}\n")
    assert host.read().effective("index-url") == (CORP, str(path))
    host.env["PIP_INDEX_URL"] = URL
    assert host.read().effective("index-url") == (URL, "PIP_INDEX_URL")
    assert host.read().effective("proxy") == ("", "")


# -- masks -------------------------------------------------------------------------------------------------------


def configured(host: Host, scope: str = "user") -> pip.ClientChange:
    return pip.configure(SETTINGS, scope=scope, env=host.env, state=host.state)


def test_nothing_hides_a_plain_configuration(host: Host) -> None:
    host.write("global", f"[global]\nindex-url = {CORP}\n")
    host.write("legacy", f"[global]\nindex-url = {CORP}\n")
    assert configured(host).masks == ()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PIP_INDEX_URL", CORP), ("PIP_PYPI_URL", CORP), ("PIP_TIMEOUT", "1"), ("PIP_DEFAULT_TIMEOUT", "180")],
)
def test_a_variable_hides_it(host: Host, variable: str, value: str) -> None:
    host.env[variable] = value
    (mask,) = configured(host).masks
    assert mask.startswith(variable) and value in mask
    assert value in (host.read().value("index-url"), host.read().value("timeout"))


def test_the_same_value_hides_nothing(host: Host) -> None:
    host.env |= {"PIP_INDEX_URL": URL, "PIP_TIMEOUT": "60"}
    assert configured(host).masks == ()


def test_no_file_is_read(host: Host) -> None:
    host.env["PIP_CONFIG_FILE"] = os.devnull
    assert any(os.devnull in mask for mask in configured(host).masks)
    assert host.read().value("index-url") == ""


def test_another_file_is_read(host: Host) -> None:
    host.env["PIP_CONFIG_FILE"] = str(host.write("chosen", ""))
    assert any("chosen.conf" in mask for mask in configured(host).masks)


def test_the_users_own_file_may_be_the_chosen_one(host: Host) -> None:
    host.env["PIP_CONFIG_FILE"] = str(host.write("user", ""))
    assert configured(host).masks == ()


def test_the_venv_hides_it(host: Host) -> None:
    host.activate()
    path = host.write("venv", f"[global]\nindex-url = https://me:canary@{CORP[8:]}\n")
    (mask,) = configured(host).masks
    assert str(path) in mask and "canary" not in mask
    assert configured(host, "venv").masks == () and host.read().value("index-url") == URL


def test_a_commands_section_hides_it(host: Host) -> None:
    host.write("global", f"[install]\nindex-url = {CORP}\n")
    (mask,) = configured(host).masks
    assert "[install]" in mask


def test_an_empty_value_hides_it(host: Host) -> None:
    host.activate()
    host.write("venv", "[global]\nindex-url =\n")
    assert len(configured(host).masks) == 1 and host.read().value("index-url") == ""


@pytest.mark.parametrize("key", ["extra-index-url", "find-links", "no-index"])
def test_what_else_pip_installs_from_is_told(host: Host, key: str) -> None:
    host.write("user", f"[global]\n{key} = 1\n")
    change = configured(host)
    assert [key in warning for warning in change.warnings] == [True]
    host.env[f"PIP_{key.upper().replace('-', '_')}"] = "1"
    assert len(pip.overridden(host.env)) >= 1


def test_never_an_extra_index(host: Host) -> None:
    change = configured(host)
    assert (
        "extra" not in change.text
        and "trusted" not in change.text
        and "extra" not in str(pip.environment(SETTINGS)).lower()
    )


# -- the upstream ------------------------------------------------------------------------------------------------


def is_ours(url: str) -> bool:
    return url.startswith("http://127.0.0.1:3141/")


def upstream(host: Host) -> tuple[str, str] | None:
    found = pip.upstream(host.read(), ours=is_ours)
    return (found.value, found.source) if found else None


def test_pips_own_default_is_none(host: Host) -> None:
    assert upstream(host) is None
    configured(host)
    assert upstream(host) is None


def test_the_upstream_is_what_pip_was_told(host: Host) -> None:
    path = host.write("user", f"[global]\nindex-url = {CORP}\n")
    assert upstream(host) == (CORP, str(path))


def test_the_upstream_is_found_behind_ourselves(host: Host) -> None:
    path = host.write("user", f"[global]\nindex-url = {CORP}\n")
    configured(host)
    assert host.read().value("index-url") == URL
    assert upstream(host) == (CORP, f"{path} before deployer")


def test_a_weaker_source_is_found_behind_ourselves(host: Host) -> None:
    path = host.write("global", f"[global]\nindex-url = {CORP}\n")
    configured(host)
    assert upstream(host) == (CORP, str(path))


def test_an_address_that_we_wrote_is_never_an_upstream(host: Host) -> None:
    """Not on loopback, so that nobody can see from the address whose it is."""
    path = host.write("user", f"[global]\nindex-url = {CORP}\n")
    far = pip.PipSettings(index_url="http://devpi.example.com:3141/root/dev/+simple/", timeout=60)
    pip.configure(far, env=host.env, state=host.state)
    assert upstream(host) == (CORP, f"{path} before deployer")


def test_ourselves_in_the_environment(host: Host) -> None:
    """As inside ``deployer exec``."""
    path = host.write("user", f"[global]\nindex-url = {CORP}\n")
    host.env |= pip.environment(SETTINGS)
    assert upstream(host) == (CORP, str(path))


def test_a_folder_of_files_is_no_upstream(host: Host) -> None:
    path = host.write("global", f"[global]\nindex-url = {CORP}\n")
    host.write("user", "[global]\nindex-url = file:///opt/wheels\n")
    assert upstream(host) == (CORP, str(path))


def test_what_an_image_build_needs(host: Host) -> None:
    host.write(
        "user", f"[global]\nindex-url = {CORP}\ncert = /c.pem\nproxy = http://p.example.com:8080\ntimeout = 7.5\n"
    )
    configured(host)
    host.env["PIP_TIMEOUT"] = "7.5"
    found = pip.build_settings(host.read(), ours=is_ours)
    assert found == {"index_url": CORP, "cert": "/c.pem", "proxy": "http://p.example.com:8080", "timeout": 8}


# -- which file --------------------------------------------------------------------------------------------------


def test_targets(host: Host) -> None:
    home = host.home
    assert pip.target("user", env=host.env) == home / ".config/pip/pip.conf"
    assert pip.target("user", env=host.env | {"XDG_CONFIG_HOME": "/x"}) == Path("/x/pip/pip.conf")
    assert pip.target("global", env=host.env) == Path("/etc/pip.conf")
    host.activate()
    assert pip.target("venv", env=host.env) == pip.target("site", env=host.env) == host.venv / "pip.conf"


def test_targets_of_macos(host: Host) -> None:
    env = {"HOME": str(host.home), "XDG_CONFIG_HOME": "/x"}
    assert pip.target("user", env=env, platform="darwin") == host.home / ".config/pip/pip.conf"
    (host.home / "Library/Application Support/pip").mkdir(parents=True)
    assert pip.target("user", env=env, platform="darwin") == host.home / "Library/Application Support/pip/pip.conf"
    assert pip.target("global", env=env, platform="darwin") == Path("/Library/Application Support/pip/pip.conf")


def test_no_venv(host: Host) -> None:
    for env in (host.env, host.env | {"VIRTUAL_ENV": str(host.home)}):
        with pytest.raises(ClientFileError, match="no venv"):
            pip.target("venv", env=env)
    with pytest.raises(ClientFileError, match="can't be told"):
        pip.target("site", env={"HOME": str(host.home), "PATH": str(host.home)})
    with pytest.raises(ClientFileError, match="no scope"):
        pip.target("nowhere", env=host.env)


def test_the_site_of_the_pip_on_path(host: Host) -> None:
    host.activate()
    (host.venv / "bin" / "pip").write_text("#!/bin/sh\n")
    (host.venv / "bin" / "pip").chmod(0o755)
    env = {name: value for name, value in host.env.items() if name != "VIRTUAL_ENV"}
    assert pip.target("site", env=env) == host.venv / "pip.conf"


# -- and pip itself installs from it -------------------------------------------------------------------------------


def wheel() -> bytes:
    rows = {
        "tiny_thing.py": b"answer = 42\n",
        "tiny_thing-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n",
        "tiny_thing-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "tiny_thing-1.0.dist-info/RECORD"
    lines = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in rows.items()
    ]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in {**rows, record: "".join([*lines, f"{record},,\n"]).encode()}.items():
            archive.writestr(name, data)
    return stream.getvalue()


class Index(BaseHTTPRequestHandler):
    """One project with one wheel; whatever else is asked for is not there, and remembered."""

    content = wheel()

    def do_GET(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        self.wfile.write(self.answer())

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> bytes:
        name = "tiny_thing-1.0-py3-none-any.whl"
        pages = {
            "/root/dev/+simple/tiny-thing/": (
                "text/html",
                f'<a href="/f/{name}#sha256={hashlib.sha256(self.content).hexdigest()}">{name}</a>'.encode(),
            ),
            f"/f/{name}": ("application/octet-stream", self.content),
        }
        kind, body = pages.get(self.path, ("text/plain", b""))
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return body

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[tuple[str, list[str]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/root/dev/+simple/", server.seen  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def download(host: Host, *command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd=host.home)


PIP = (
    sys.executable,
    "-m",
    "pip",
    "--disable-pip-version-check",
    "--no-cache-dir",
    "download",
    "--no-deps",
    "tiny-thing",
)


def test_pip_installs_through_the_file(host: Host, index: tuple[str, list[str]]) -> None:
    url, seen = index
    settings = pip.PipSettings(index_url=url, timeout=33)
    change = pip.configure(settings, env=host.env, state=host.state)
    assert "trusted" not in change.text
    done = download(host, *PIP, env=host.env)
    assert done.returncode == 0, done.stderr
    assert "trusted" not in done.stderr + done.stdout
    assert (host.home / "tiny_thing-1.0-py3-none-any.whl").read_bytes() == Index.content
    assert seen == ["/root/dev/+simple/tiny-thing/", "/f/tiny_thing-1.0-py3-none-any.whl"]
    _, found, timeout, _, _ = ast.literal_eval(host.ask().stdout)
    assert (found, timeout) == (url, 33.0)
    pip.undo(env=host.env, state=host.state)
    assert ast.literal_eval(host.ask().stdout)[1] != url


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_one_command_with_the_index_and_no_file_touched(host: Host, index: tuple[str, list[str]], tool: str) -> None:
    url, seen = index
    host.write("user", "[global]\nindex-url = http://127.0.0.1:9/\ntimeout = 1\n")
    before = sorted(host.home.rglob("*"))
    # What is set already must not win.
    env = host.env | {
        "PIP_DEFAULT_TIMEOUT": "1",
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "UV_INDEX_URL": "http://127.0.0.1:9/",
    }
    env |= pip.environment(pip.PipSettings(index_url=url, timeout=33)) | {"UV_NO_CACHE": "1"}
    if tool == "pip":
        done = download(host, *PIP, "--dest", str(host.xdg), env=env)
        host.env = env
        assert ast.literal_eval(host.ask().stdout)[2] == 33.0
    else:
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if uv is None:
            pytest.skip("no uv")
        done = download(
            host,
            uv,
            "pip",
            "install",
            "--python",
            sys.executable,
            "--target",
            str(host.xdg / "t"),
            "tiny-thing",
            env=env,
        )
    assert done.returncode == 0, done.stderr
    assert "/f/tiny_thing-1.0-py3-none-any.whl" in seen
    assert sorted(host.home.rglob("*")) == before


def test_a_plain_http_host_needs_to_be_trusted(host: Host, index: tuple[str, list[str]]) -> None:
    """Under a name that pip does not take for this host, the same server is refused, until it is trusted."""
    url, seen = index
    proxy = url.split("/root")[0]
    far = "http://devpi.example.com:3141/root/dev/+simple/"
    env = host.env | {"HTTP_PROXY": proxy, "http_proxy": proxy}
    host.write("user", f"[global]\nindex-url = {far}\n")
    done = download(host, *PIP, env=env)
    assert done.returncode != 0 and "not a trusted or secure host" in done.stderr + done.stdout
    assert seen == []
    change = pip.configure(pip.PipSettings(index_url=far, timeout=5), env=env, state=host.state)
    assert "trusted-host = devpi.example.com:3141" in change.text and "https" in change.warnings[0]
    download(host, *PIP, env=env)
    assert seen == [f"{far}tiny-thing/"]
