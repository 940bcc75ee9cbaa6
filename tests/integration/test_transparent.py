"""``deployer exec --transparent``: real clients keep the upstream's addresses, and everything comes from the index.

On a machine of namespaces, an imitation of the clients' default index answers under its own name, so no client needs a
setting to find it.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployer.certificates.authority import Authority
from tests.indexed_server import upload
from tests.integration.client_tools import installed
from tests.integration.test_tutorials import blocks
from tests.network_lab import ForwardProxy
from tests.plain_devpi import free_port
from tests.server_process import auth_header, login
from tests.transparent_lab import FILES, INDEX, INDEX_URL, OTHER, Lab, lab
from tests.upstream import Answer, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

PROJECT = """\
[project]
name = "acme"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["demo"]
"""
BESIDE = Path(sys.executable).parent
TUNNEL = "clients.transparent.tunnel"
SERVER = "devpi-server/"
"""The user agent of what the index itself asks its upstream."""


@pytest.fixture(scope="module")
def tools() -> Path:
    return installed()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("transparent")) as made:
        yield made


@pytest.fixture
def place(world: Lab, tmp_path: Path) -> Lab:
    """The same world with a home of the test's own, nothing asked yet."""
    world.home = tmp_path
    world.upstream.forget()
    return world


def program_of(tools: Path, name: str) -> str:
    """uv is beside this Python; the others have environments of their own."""
    return str(BESIDE / "uv" if name == "uv" else tools / name)


def project(directory: Path, name: str) -> Path:
    made = directory / name / "acme"
    made.mkdir(parents=True)
    (made / "pyproject.toml").write_text(PROJECT)
    (made / "requirements.in").write_text("demo\n")
    return made


def past_us(place: Lab) -> list[str]:
    """What clients asked the upstream for themselves."""
    return [
        asked.path for asked in place.upstream.requests if not asked.headers.get("user-agent", "").startswith(SERVER)
    ]


def no_tunnel(place: Lab) -> None:
    """Every tunnel has ended, or ends at once."""
    deadline = time.monotonic() + 60
    while found := [line for line in place.machine.processes() if TUNNEL in line]:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


COMPILED = ("--generate-hashes", "requirements.in", "-o", "requirements.txt")
LOCKS = {
    "uv": (("uv", "lock", "--no-cache"), "uv.lock"),
    "uv pip compile": (
        ("uv", "pip", "compile", "--no-cache", "-q", "--emit-index-url", *COMPILED),
        "requirements.txt",
    ),
    "pip": (("pip/bin/pip", "lock", "--no-cache-dir", "-r", "requirements.in"), "pylock.toml"),
    "poetry": (("poetry/bin/poetry", "lock", "--no-cache"), "poetry.lock"),
    "pdm": (("pdm/bin/pdm", "lock"), "pdm.lock"),
    "pdm static_urls": (("pdm/bin/pdm", "lock", "--strategy", "static_urls"), "pdm.lock"),
    "pip-tools": (("pip/bin/pip-compile", "-q", "--rebuild", "--emit-index-url", *COMPILED), "requirements.txt"),
}


@pytest.mark.parametrize("client", LOCKS)
def test_lock_files_are_those_made_directly(place: Lab, tools: Path, client: str) -> None:
    """Byte for byte: the first time, and with the upstream gone."""
    (program, *words), lock = LOCKS[client]

    def locked(how: str) -> bytes:
        directory = project(place.home, how)
        run = place.run if how == "direct" else place.transparent
        done = run(program_of(tools, program), *words, cwd=directory, env={"HOME": str(directory.parent)})
        assert done.returncode == 0, done.stdout + done.stderr
        return (directory / lock).read_bytes()

    direct = locked("direct")
    assert b"demo" in direct
    place.upstream.forget()
    assert locked("first") == direct
    # pip-tools asks for an address that its own index does not have.
    assert [path for path in past_us(place) if not path.endswith("/json")] == []
    place.upstream.stop()
    try:
        assert locked("gone") == direct
    finally:
        with place.machine.inside():
            place.upstream.start()


def test_a_lock_file_made_elsewhere_is_installed_from_the_cache(place: Lab, tools: Path) -> None:
    uv, directory = program_of(tools, "uv"), project(place.home, "direct")
    assert place.run(uv, "lock", "--no-cache", cwd=directory).returncode == 0
    before = (directory / "uv.lock").read_bytes()
    assert f"https://{FILES}/".encode() in before
    place.upstream.forget()
    sync = (uv, "sync", "--frozen", "--no-cache", "--no-install-project")
    done = place.transparent(*sync, cwd=directory)
    assert done.returncode == 0, done.stderr
    assert past_us(place) == []
    place.upstream.stop()
    try:
        (directory / ".venv").rename(directory / "former")
        done = place.transparent(*sync, cwd=directory)
        assert done.returncode == 0, done.stderr
        # The cache is what makes it work.
        assert place.run(*sync, "--reinstall", cwd=directory, env={"UV_HTTP_RETRIES": "0"}).returncode != 0
    finally:
        with place.machine.inside():
            place.upstream.start()
    assert {path.name for path in directory.glob(".venv/lib/*/site-packages/*.py")} >= {"demo.py", "demo_dep.py"}
    assert (directory / "uv.lock").read_bytes() == before


def test_a_release_that_is_newer_than_the_known_page_comes_from_the_upstream(place: Lab, tools: Path) -> None:
    """A lock file of another machine may name it before the index asks for the page again."""
    assert (
        place.transparent(program_of(tools, "uv"), "pip", "compile", "-q", "--no-cache", "-", cwd=place.home).returncode
        == 0
    )
    path = "/packages/zz/demo-9.0-py3-none-any.whl"
    place.upstream.answers[path] = Answer(body=b"new")
    done = place.transparent("curl", "-sS", "--fail", f"https://{FILES}{path}")
    assert (done.returncode, done.stdout) == (0, "new"), done.stderr
    done = place.transparent("curl", "-sS", "--fail", f"https://{FILES}/packages/zz/demo-9.1-py3-none-any.whl")
    assert done.returncode == 22


@pytest.mark.parametrize("host", [OTHER, INDEX])
def test_uploads_go_through_untouched(place: Lab, tools: Path, host: str) -> None:
    """Also to the host of the index itself, of which only pages and files come from us."""
    wheel = make_wheel("acme-upload", "1.0", files={"acme.py": "x" * 300_000})
    (place.home / wheel.filename).write_bytes(wheel.content)
    url = f"https://{host}/legacy/"
    uploads = {
        "twine": (str(BESIDE / "twine"), "upload", "--non-interactive", "--repository-url", url),
        "uv": (program_of(tools, "uv"), "publish", "--no-config", "--publish-url", url),
    }
    for name, words in uploads.items():
        credentials = {
            "TWINE_USERNAME": "me",
            "TWINE_PASSWORD": "word",
            "UV_PUBLISH_USERNAME": "me",
            "UV_PUBLISH_PASSWORD": "word",
        }
        place.upstream.forget()
        done = place.transparent(*words, wheel.filename, env=credentials)
        assert done.returncode == 0, done.stdout + done.stderr
        (posted,) = [asked for asked in place.upstream.requests if asked.method == "POST"]
        assert posted.path == "/legacy/" and wheel.content in posted.body, name
        assert posted.headers["authorization"] == "Basic bWU6d29yZA=="
        assert not posted.headers["user-agent"].startswith(SERVER)


# What would lead past it


@pytest.mark.parametrize("client", ["uv", "pip"])
@pytest.mark.parametrize(
    "setting",
    [
        {"NO_PROXY": "*"},
        {"no_proxy": "*"},
        {"no_proxy": f"localhost,{INDEX},.example.com", "NO_PROXY": INDEX},
        {"NO_PROXY": ".example.com", "HTTPS_PROXY": "", "https_proxy": ""},
        {"SSL_CERT_FILE": "", "PIP_CERT": "{bundle}", "REQUESTS_CA_BUNDLE": ""},
        {"CURL_CA_BUNDLE": "{bundle}", "REQUESTS_CA_BUNDLE": ""},
        {"PIP_INDEX_URL": "{ours}", "UV_DEFAULT_INDEX": "{ours}"},
        {"UV_INDEX_URL": "{ours}"},
        {"PIP_INDEX_URL": INDEX_URL, "UV_INDEX_URL": INDEX_URL},
    ],
    ids=lambda setting: " ".join(setting),
)
def test_settings_that_are_overcome(place: Lab, tools: Path, client: str, setting: dict[str, str]) -> None:
    known = {"bundle": place.authority.file, "ours": f"{place.cli.url}/root/dev/+simple/"}
    env = {name: value.format(**known) for name, value in setting.items()}
    done = place.transparent(*installing(tools, client, place.home / "there"), env=env)
    assert done.returncode == 0, done.stderr
    assert (place.home / "there/demo.py").exists()
    assert past_us(place) == []


def installing(tools: Path, client: str, target: Path) -> tuple[str, ...]:
    quick = {"uv": ("uv", "pip", "install", "--no-cache"), "pip": ("pip/bin/pip", "install", "--no-cache-dir")}
    program, *words = quick[client]
    return (program_of(tools, program), *words, "-q", "--no-deps", "--target", str(target), "demo")


def test_files_of_clients_that_are_overcome(place: Lab, tools: Path) -> None:
    config = place.home / ".config"
    (config / "pip").mkdir(parents=True)
    ours = f"{place.cli.url}/root/dev/+simple/"
    (config / "pip/pip.conf").write_text(
        f"[global]\nindex-url = {ours}\nproxy = http://127.0.0.1:9\ncert = {place.authority.file}\n"
    )
    (config / "uv").mkdir()
    (config / "uv/uv.toml").write_text(f'[[index]]\nurl = "{ours}"\ndefault = true\n')
    for client in ("pip", "uv"):
        done = place.transparent(*installing(tools, client, place.home / client), env={"HTTPS_PROXY": ""})
        assert done.returncode == 0, done.stderr
    assert past_us(place) == []
    # A lock file has the upstream's addresses although uv.toml has ours.
    directory = project(place.home, "locked")
    assert place.transparent(program_of(tools, "uv"), "lock", "--no-cache", cwd=directory).returncode == 0
    text = (directory / "uv.lock").read_text()
    assert f'registry = "{INDEX_URL.rstrip("/")}"' in text and "127.0.0.1" not in text


REFUSED = {
    "uv.toml https-proxy": {".config/uv/uv.toml": 'https-proxy = "http://127.0.0.1:9"\n'},
    "pyproject.toml no-proxy": {"pyproject.toml": f'[tool.uv]\nno-proxy = ["{INDEX}"]\n'},
    "uv.toml index": {".config/uv/uv.toml": 'index-url = "https://other.example.com/simple/"\n'},
    "pip.conf index": {".config/pip/pip.conf": "[global]\nindex-url = https://other.example.com/simple/\n"},
    "pdm url": {".config/pdm/config.toml": '[pypi]\nurl = "https://other.example.com/simple/"\n'},
    "pdm ca": {".config/pdm/config.toml": '[pypi]\nca_certs = "/etc/hosts"\n'},
    "poetry ca": {".config/pypoetry/config.toml": '[certificates.own]\ncert = "/etc/hosts"\n'},
    "UV_DEFAULT_INDEX": {"UV_DEFAULT_INDEX": "https://other.example.com/simple/"},
    "PIP_INDEX_URL": {"PIP_INDEX_URL": "https://other.example.com/simple/"},
    "socks": {"https_proxy": "socks5://127.0.0.1:9"},
}


@pytest.mark.parametrize("what", REFUSED)
def test_settings_that_are_refused_before_anything_runs(place: Lab, what: str) -> None:
    env = {}
    for name, text in REFUSED[what].items():
        if name.isupper() or name == "https_proxy":
            env[name] = text
        else:
            (place.home / name).parent.mkdir(parents=True, exist_ok=True)
            (place.home / name).write_text(text)
    done = place.transparent("touch", "ran", env=env)
    assert done.returncode == 11, done.stderr
    error, hint = done.stderr.strip().splitlines()[-2:]
    assert any(word in error for word in ("uv.toml", "pyproject", "pip.conf", "config.toml", "INDEX", "socks5")), error
    assert hint
    assert not (place.home / "ran").exists()
    no_tunnel(place)


def test_further_indexes_are_named_and_left_alone(place: Lab) -> None:
    env = {"UV_INDEX": f"own=https://{OTHER}/simple/", "PIP_EXTRA_INDEX_URL": f"{place.cli.url}/root/dev/+simple/"}
    done = place.transparent("true", env=env)
    assert done.returncode == 0
    assert f"UV_INDEX (https://{OTHER}/simple/)" in done.stderr and "PIP_EXTRA_INDEX_URL" in done.stderr


def test_another_proxy_is_chained_to(place: Lab, tools: Path) -> None:
    with place.machine.inside():
        proxy = ForwardProxy(address="127.0.0.3", connect=lambda host, port: _connect(place, host, port))
    try:
        place.upstream.answers["/hello"] = Answer(body=b"hello")
        env = {"https_proxy": proxy.url}
        done = place.transparent("curl", "-sS", "--fail", f"https://{OTHER}/hello", env=env)
        assert (done.returncode, done.stdout) == (0, "hello"), done.stderr
        assert proxy.asked == [f"{OTHER}:443"]
        exempt = {**env, "no_proxy": OTHER}
        assert place.transparent("curl", "-sS", f"https://{OTHER}/hello", env=exempt).stdout == "hello"
        assert place.transparent(*installing(tools, "pip", place.home / "there"), env=env).returncode == 0
        assert proxy.asked == [f"{OTHER}:443"]
        # What the index does not show goes through it, too.
        assert place.transparent("curl", "-sS", f"https://{INDEX}/hello", env=env).stdout == "hello"
        assert proxy.asked == [f"{OTHER}:443", f"{INDEX}:443"]
    finally:
        proxy.close()


def _connect(place: Lab, host: str, port: int) -> socket.socket:
    with place.machine.inside():
        return socket.create_connection(("127.0.0.1", port))


# The command


DRIVER = """
import json, os, pty, signal, subprocess, sys, time
words, how = json.loads(sys.argv[1]), sys.argv[2]
if how == "terminal":
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(words[0], words)
    text = b""
    while b"ready" not in text:
        text += os.read(terminal, 1000)
    os.write(terminal, b"\\x03")
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text.decode().split())
else:
    child = subprocess.Popen(words, stdout=subprocess.PIPE)
    child.stdout.readline()
    child.send_signal(getattr(signal, how))
    print(child.wait())
"""
READY = "import os, sys, time; print('ready', flush=True); time.sleep(600)"
FOREGROUND = """
import os, signal, sys, time
def end(number, frame):
    sys.exit(3)
signal.signal(signal.SIGINT, end)
print('foreground' if os.tcgetpgrp(0) == os.getpgrp() else 'background', os.isatty(1), flush=True)
print('ready', flush=True)
while True:
    time.sleep(0.05)
"""


def driven(place: Lab, code: str, how: str) -> str:
    words = [place.cli.python, "-m", "deployer.cli", "exec", "--name", place.cli.name, "--transparent", "--"]
    driver = (place.cli.python, "-c", DRIVER, json.dumps([*words, place.cli.python, "-c", code]), how)
    done = place.run(*driver)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_exit_codes_signals_and_terminals_are_the_commands_own(place: Lab) -> None:
    assert place.transparent("sh", "-c", "exit 7").returncode == 7
    assert place.transparent("no-such-program").returncode == 127
    for name, code in (("SIGTERM", -15), ("SIGHUP", -1), ("SIGKILL", -9), ("SIGINT", -2)):
        # Who runs the tests, like nohup, may have them ignored.
        default = "" if name == "SIGKILL" else f"import signal; signal.signal(signal.{name}, signal.SIG_DFL); "
        assert driven(place, default + READY, name) == str(code)
    code, _, words = driven(place, FOREGROUND, "terminal").partition(" ")
    assert code == "3"
    assert "foreground" in words and "True" in words
    no_tunnel(place)


def test_a_shell_has_it_until_the_shell_ends(place: Lab, tools: Path) -> None:
    deployer = f"{place.cli.python} -m deployer.cli env --name {place.cli.name} --transparent"
    for shell in ("sh", "bash"):
        target = place.home / shell
        install = " ".join(installing(tools, "uv", target))
        script = f'eval "$({deployer})"\n{install} && curl -sS --fail https://{OTHER}/hello >{target}/hello'
        place.upstream.answers["/hello"] = Answer(body=b"hello")
        done = place.run(shell, "-c", script)
        assert done.returncode == 0, done.stderr
        assert (target / "demo.py").exists() and (target / "hello").read_text() == "hello"
    assert [path for path in past_us(place) if path != "/hello"] == []
    no_tunnel(place)


def test_what_is_uploaded_to_the_index_is_not_shown(place: Lab, tools: Path) -> None:
    """A private package must not be locked as a public one."""
    auth = place_auth(place)
    with place.machine.inside():
        assert upload(place.cli, auth, "root/dev", make_wheel("demo", "99.0")) == 200
    done = place.transparent(program_of(tools, "uv"), "lock", "--no-cache", cwd=(directory := project(place.home, "x")))
    assert done.returncode == 0, done.stderr
    assert 'version = "2.0"' in (directory / "uv.lock").read_text()
    assert "99.0" not in (directory / "uv.lock").read_text()


def place_auth(place: Lab) -> dict[str, str]:
    password = place.cli.run("secret", "show", "root").out.strip()
    with place.machine.inside():
        status, answer = login(place.cli.port, password)
    assert status == 200
    return auth_header(answer["result"]["password"])


def test_the_page_about_lock_files(place: Lab, tools: Path) -> None:
    """Line by line, from nothing to a project whose lock file is unchanged and whose installs are cached."""
    _install, begin, frozen, shell = blocks("../how-to/lock-files.md", "sh")
    free = str(free_port())
    env = {
        "PATH": f"{BESIDE}:/usr/bin:/bin",
        "DEPLOYER_NAME": f"{place.cli.name}-page",
        "DEPLOYER_ENGINE": "process",
        "DEPLOYER_PORT": free,
        "DEPLOYER_DATA": str(place.home / "data"),
        "UV_NO_CACHE": "1",
    }
    try:
        for text in (begin, frozen, shell):
            done = place.run("bash", "-euc", text, env=env)
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
            assert past_us(place) == []
        lock = (place.home / "acme/uv.lock").read_text()
        assert f'registry = "{INDEX_URL.rstrip("/")}"' in lock and "127.0.0.1" not in lock
        assert list(place.home.glob("acme/.venv/lib/*/site-packages/iniconfig.py"))
    finally:
        place.run("deployer", "down", "--purge", "--yes", env=env)
    no_tunnel(place)


def test_the_profile_makes_it_the_default(place: Lab, tools: Path) -> None:
    port = str(free_port())
    name = ("--name", f"{place.cli.name}-own")
    up = ("--engine", "process", "--no-pip", "--port", port, "--data", str(place.home / "data"))
    deployer = (place.cli.python, "-m", "deployer.cli")
    try:
        done = place.run(*deployer, "up", *name, *up, "--set", "clients.transparent=true")
        assert done.returncode == 0, done.stderr
        done = place.run(*deployer, "exec", *name, "--", *installing(tools, "uv", place.home / "there"))
        assert done.returncode == 0, done.stderr
        assert past_us(place) == []
        done = place.run(*deployer, "env", *name, "--json")
        assert "deployer:" in json.loads(done.stdout)["data"]["variables"]["HTTPS_PROXY"]
        done = place.run(*deployer, "env", *name, "--no-transparent")
        assert f"export UV_DEFAULT_INDEX=http://127.0.0.1:{port}/root/dev/+simple/" in done.stdout.splitlines()
        assert "HTTPS_PROXY" not in done.stdout
    finally:
        place.run(*deployer, "down", *name, "--purge", "--yes")
    assert not list(place.cli.home.rglob(f"{name[1]}/transparent"))


def test_an_index_without_a_transparent_mirror_is_refused(place: Lab) -> None:
    made = place.cli.run("mirror", "create", "root/plain", "http://other.example.com/simple/")
    assert made.code == 0, made.err
    exec_ = (place.cli.python, "-m", "deployer.cli", "exec", "--name", place.cli.name, "--transparent")
    done = place.run(*exec_, "--index", "root/plain", "--", "touch", "ran")
    assert done.returncode == 11 and "http://other.example.com/simple/ has no https" in done.stderr
    done = place.run(*exec_, "--index", "root/none", "--", "touch", "ran")
    assert done.returncode == 7, done.stderr
    assert not (place.home / "ran").exists()


# Trust


def test_a_certificate_for_another_name_is_refused_by_every_client(place: Lab, tools: Path, tmp_path: Path) -> None:
    """What the CA may sign for is in the CA: its key would be of no use elsewhere."""
    now, valid = datetime.now(UTC), timedelta(days=1)
    ca = Authority.made([INDEX, FILES], now, title="tests", valid=valid)
    bundle = tmp_path / "ca.pem"
    bundle.write_text(ca.certificate)
    env = {name: str(bundle) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")}
    for host, port, accepted in ((INDEX, 8441, True), (OTHER, 8442, False)):
        for path, text in zip((tmp_path / "chain", tmp_path / "key"), ca.signed([host], now, valid=valid), strict=True):
            path.write_text(text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "chain", tmp_path / "key")
        with place.machine.inside():
            listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=_hello, args=(listener, context), daemon=True).start()
        url = f"https://{host}:{port}/simple/"
        target = ("--target", str(tmp_path / "x"), "demo")
        clients = {
            "uv": (program_of(tools, "uv"), "pip", "install", "--no-cache", "--index-url", url, *target),
            "pip": (str(tools / "pip/bin/pip"), "install", "--retries", "0", "--index-url", url, *target),
            "requests": (str(tools / "poetry/bin/python"), "-c", f"import requests; requests.get('{url}')"),
            "curl": ("curl", "-sS", url),
        }
        for name, words in clients.items():
            done = place.run(*words, env={**env, "UV_HTTP_RETRIES": "0"})
            text = (done.stdout + done.stderr).lower()
            refused = any(word in text for word in ("certificate", "ssl", "tls"))
            assert refused is not accepted, (name, host, text)
        listener.close()


def _hello(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        try:
            with context.wrap_socket(client, server_side=True) as tls:
                tls.recv(10_000)
                tls.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except OSError:
            client.close()


def test_the_key_is_private_and_the_ca_is_in_no_store(place: Lab) -> None:
    assert place.transparent("true").returncode == 0
    kept = place.cli.home / "state" / place.cli.name / "transparent"
    assert kept.stat().st_mode & 0o777 == 0o700
    keys = list(kept.rglob("key.pem"))
    assert keys and all(key.stat().st_mode & 0o777 == 0o600 for key in keys)
    assert not [
        path
        for path in kept.rglob("*")
        if path.is_file() and "PRIVATE KEY" in path.read_text() and path.name != "key.pem"
    ]
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", str(keys[0].with_name("ca.pem"))],
        capture_output=True,
        text=True,
        check=True,
    )
    for word in ("CA:TRUE, pathlen:0", f"DNS:{INDEX}", f"DNS:{FILES}", "Excluded", "TLS Web Server Authentication"):
        assert word in done.stdout, done.stdout
