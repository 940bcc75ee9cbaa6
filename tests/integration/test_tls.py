"""HTTPS as users have it: real nginx, pip and uv, certificates of our own CA and of somebody else's."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from deployer.certificates.authority import Authority
from deployer.certificates.pair import shown
from deployer.deployment.certificate import served
from tests.engines import need
from tests.front import need_nginx
from tests.integration.cli import Cli
from tests.integration.installers import BESIDE, PATIENCE
from tests.plain_devpi import free_port
from tests.server_process import Server
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server

NAMES = ("localhost", "127.0.0.1", "index.example.com")


@dataclass
class Https:
    """A deployment with HTTPS on ``port``; ``ca``: what one trusts."""

    cli: Cli
    port: int
    ca: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def index(self) -> str:
        return f"{self.url}/root/dev/+simple/"

    def words(self, *words: str) -> tuple[str, ...]:
        return ("--no-pip", "--set", f"network.tls.port={self.port}", *words)

    def client(self, **how: object) -> httpx.Client:
        trust = ssl.create_default_context(cafile=str(self.ca))
        return httpx.Client(base_url=self.url, verify=trust, trust_env=False, timeout=PATIENCE, **how)  # type: ignore[arg-type]

    @property
    def fingerprint(self) -> str:
        found = served(f"https://127.0.0.1:{self.port}")
        assert found is not None
        return shown(found).fingerprint

    def install(self, tool: str, to: Path, **env: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        words = {
            "pip": ("pip", "--disable-pip-version-check", "install", "--no-cache-dir", "--retries", "0"),
            "uv": ("uv", "pip", "install", "--no-cache", "--python", str(BESIDE / "python")),
        }[tool]
        return subprocess.run(
            [str(BESIDE / words[0]), *words[1:], "--target", str(to), "demo"],
            env={**kept, "HOME": str(to.parent), "UV_HTTP_RETRIES": "0", **env},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("demo", "1.0")]) as it:
        yield it


@pytest.fixture(scope="module")
def own(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Https]:
    """With a certificate of our own CA."""
    need("process")
    need_nginx()
    home = tmp_path_factory.mktemp("own")
    cli = Cli(home=home, engine="process", upstream=upstream.simple_url)
    https = Https(cli=cli, port=free_port(), ca=home / "ca.pem")
    try:
        up = cli.up(*https.words("--set", "network.tls.cert=auto", "--set", "network.tls.names=[localhost]"))
        assert up.code == 0, up.err
        https.ca.write_text(cli.run("tls", "ca").out)
        yield https
    finally:
        cli.clean()


def test_pip_and_uv_install_with_the_ca_and_not_without(own: Https, tmp_path: Path) -> None:
    told = {"pip": ("PIP_INDEX_URL", "PIP_CERT"), "uv": ("UV_DEFAULT_INDEX", "SSL_CERT_FILE")}
    for tool, (index, trust) in told.items():
        done = own.install(tool, tmp_path / tool, **{index: own.index, trust: str(own.ca)})
        assert done.returncode == 0, done.stderr
        assert (tmp_path / tool / "demo.py").exists()
        refused = own.install(tool, tmp_path / f"not-{tool}", **{index: own.index})
        assert refused.returncode != 0 and not (tmp_path / f"not-{tool}" / "demo.py").exists()


def test_a_colleague_s_pip_is_configured_with_the_ca_and_trusts_no_host(own: Https, tmp_path: Path) -> None:
    colleague = Cli(home=tmp_path, engine="process", extra={"PIP_CERT": "", "REQUESTS_CA_BUNDLE": ""})
    words = ("configure-pip", "--url", own.index, "--ca", str(own.ca))
    masked = colleague.run(*words, "--print", env={"PIP_CERT": "/other.pem"})
    assert masked.code == 0 and f"cert = {own.ca}" in masked.out
    done = colleague.run(*words)
    assert done.code == 0, done.err
    text = colleague.pip_conf.read_text()
    assert f"cert = {own.ca}" in text and "trusted-host" not in text
    downloaded = colleague.pip("download", "--no-deps", "--dest", str(tmp_path / "files"), "demo")
    assert downloaded.returncode == 0, downloaded.stderr
    assert colleague.run("configure-pip", "--undo").code == 0
    assert not colleague.pip_conf.exists()
    for words, why in (
        (("--ca", str(own.ca)), "there is no deployment"),
        (("--url", "http://h.example.com/root/dev/+simple/", "--ca", str(own.ca)), "--ca is for an https address"),
        (("--url", own.index, "--ca", str(tmp_path / "none")), "can't be read"),
    ):
        refused = colleague.run("configure-pip", *words)
        assert refused.code in (2, 5) and why in refused.err, refused.err


def test_addresses_are_https_and_http_2_is_spoken(own: Https) -> None:
    """Whoever asks by HTTPS gets addresses with https in them: of logins, of files, and in pages for browsers."""
    with own.client(http2=True) as client:
        api = client.get("/+api", headers={"Accept": "application/json"})
        assert (api.http_version, api.json()["result"]["login"]) == ("HTTP/2", f"{own.url}/+login")
        page = client.get("/root/dev/+simple/demo/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
        (file,) = page.json()["files"]
        found = client.get(str(page.url.join(file["url"])))
        assert found.status_code == 200 and found.url.scheme == "https"
        browser = client.get("/root/dev/demo", headers={"Accept": "text/html", "User-Agent": "Mozilla/5.0"})
        assert browser.status_code == 200 and own.url in browser.text and "http://localhost" not in browser.text
    with own.client() as client:
        assert client.get("/+api").http_version == "HTTP/1.1"


def test_a_session_s_cookie_is_for_https_only(own: Https) -> None:
    password = own.cli.run("secret", "show").out.strip()
    form = {"user": "root", "password": password, "next": "/"}
    with own.client(http2=True) as client:
        word = client.get("/+web/login", headers={"Accept": "text/html"})
        done = client.post("/+web/login", data=form, headers={"Origin": own.url})
        assert done.status_code in (302, 303), (done.status_code, word.status_code)
        assert "; Secure" in done.headers["Set-Cookie"]


def test_plain_http_is_redirected_on_the_port_of_https(own: Https) -> None:
    plain = own.url.replace("https:", "http:")
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        for method in ("GET", "POST"):
            answer = client.request(method, f"{plain}/root/dev/+simple/demo/?a=1")
            assert answer.status_code == 308
            assert answer.headers["Location"] == f"{own.url}/root/dev/+simple/demo/?a=1"
        rebound = client.get(f"{plain}/", headers={"Host": "evil.example.com"})
        assert rebound.status_code == 421 and "Location" not in rebound.headers
    with own.client(http2=True) as client:
        assert client.get("/", headers={"Host": "evil.example.com"}).status_code == 421


def test_a_body_without_a_length_needs_a_login(own: Https) -> None:
    """HTTP/2 needs none, and nginx would keep what anybody sends on the disk."""

    def endless() -> Iterator[bytes]:
        for _ in range(3):  # httpx reads no answer while a stream's first window, of 64 kB, is full
            yield b"x" * 16_000

    with own.client(http2=True) as client:
        assert client.request("PUT", "/root/dev/", content=endless()).status_code in (401, 403)
        assert client.request("GET", "/+api", content=endless()).status_code == 413
        assert client.get("/+api").status_code == 200


def test_old_protocols_are_refused(own: Https) -> None:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{own.port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode != 0 and "BEGIN CERTIFICATE" not in done.stdout


def test_status_doctor_and_plan_know_the_certificate(own: Https) -> None:
    told = own.cli.run("status", "--json").data["tls"]
    assert (told["url"], told["answers"], "localhost" in told["names"]) == (own.url, True, True)
    assert 300 < told["days"] < 400
    checks = {check["name"]: check for check in own.cli.run("doctor", "--json").data["checks"]}
    assert checks["tls"]["level"] == "ok"
    assert own.cli.run("status", "--check").code == 0
    ca = own.cli.run("tls", "ca", "--json").data
    assert (ca["simple_url"], ca["text"]) == (own.index, own.ca.read_text())
    units = own.cli.run("install-service", "--print").out
    assert "tls renew --name" in units and "OnCalendar=daily" in units
    kept = own.cli.home / "state" / own.cli.name / "tls"
    assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {0o600}
    own.cli.run("down")
    assert (kept / "ca-key.pem").exists()  # the clients' CA outlasts a server
    up = own.cli.up(*own.words("--set", "network.tls.cert=auto", "--set", "network.tls.names=[localhost]"))
    assert up.code == 0, up.err
    assert own.cli.run("tls", "ca").out.strip() == own.ca.read_text().strip()


# A certificate in files, as an ACME client keeps it


class Files:
    """Somebody's CA, and the files with the certificate that it signed last."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.cert, self.key, self.ca = (directory / name for name in ("fullchain.pem", "privkey.pem", "ca.pem"))
        self._authority = Authority.made(NAMES, datetime.now(UTC), title="acme", valid=timedelta(days=90))
        self.ca.write_text(self._authority.certificate)
        self.renew()

    def renew(self, *names: str, age: timedelta = timedelta()) -> None:
        chain, key = self._authority.signed(names or NAMES, datetime.now(UTC) - age, valid=timedelta(days=30))
        self.cert.write_text(chain)
        self.key.write_text(key)
        self.key.chmod(0o600)


@pytest.fixture(scope="module")
def given(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Https, Files]]:
    """With a certificate in files."""
    need("process")
    need_nginx()
    home = tmp_path_factory.mktemp("given")
    files = Files(home / "acme")
    cli = Cli(home=home, engine="process", upstream=upstream.simple_url)
    https = Https(cli=cli, port=free_port(), ca=files.ca)
    try:
        yield https, files
    finally:
        cli.clean()


def files_of(files: Files) -> tuple[str, ...]:
    return ("--set", f"network.tls.cert={files.cert}", "--set", f"network.tls.key={files.key}")


def test_files_that_can_t_be_used_are_refused_before_any_effect(given: tuple[Https, Files]) -> None:
    https, files = given
    words = https.words(*files_of(files), "--set", "network.hosts=[index.example.com]")
    key = files.key.read_text()
    wrong: list[tuple[str, object]] = [
        ("expired", lambda: files.renew(age=timedelta(days=33))),
        ("not for index.example.com", lambda: files.renew("localhost")),
        ("the key is not that of the certificate", lambda: (files.renew(), files.key.write_text(key))),
        ("can't be read", lambda: (files.renew(), files.key.unlink())),
    ]
    for why, spoil in wrong:
        spoil()  # type: ignore[operator]
        up = https.cli.up(*words)
        assert up.code == 5, up.err
        error, hint = up.err.strip().splitlines()
        assert error.startswith("error") and why in error and hint.startswith("hint"), up.err
        assert not https.cli.data.exists()
    files.renew()


def test_a_renewed_certificate_is_taken_without_a_failed_request(given: tuple[Https, Files]) -> None:
    https, files = given
    up = https.cli.up(*https.words(*files_of(files)))
    assert up.code == 0, up.err
    first = https.fingerprint
    bad: list[str] = []
    asked, over = [0], threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                # By HTTP/1.1: httpx fails where a server ends a connection of HTTP/2 in good order (GOAWAY).
                with https.client() as client:
                    status = client.get("/root/dev/+simple/demo/").status_code
                    if status != 200:
                        bad.append(str(status))
            except httpx.HTTPError as error:
                bad.append(repr(error))
            asked[0] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        files.renew()
        drift = https.cli.run("status", "--check")
        assert drift.code == 10 and "tls" in drift.err, drift.err
        done = https.cli.run("tls", "renew", "--json")
        assert done.code == 0, done.out
        second = https.fingerprint
        assert (done.data["changed"], done.data["fingerprint"]) == (True, second)
        assert second != first
        many = asked[0] + 10
        deadline = time.monotonic() + PATIENCE
        while asked[0] < many and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        over.set()
        thread.join(PATIENCE)
    assert not bad
    assert https.cli.run("status", "--check").code == 0
    again = https.cli.run("tls", "renew", "--json")
    assert again.data["changed"] is False
    # A restart and `up` take renewed files, too; `up` leaves the server alone.
    files.renew()
    restarted = https.cli.run("restart")
    assert restarted.code == 0, restarted.err
    assert "gave the server its renewed certificate" in restarted.err and https.fingerprint not in (first, second)
    files.renew()
    up = https.cli.up(*https.words(*files_of(files)), "--json")
    assert json.loads(up.out)["data"]["server"] == "unchanged"
    assert https.fingerprint not in (first, second)


def test_a_broken_file_of_the_server_is_not_taken(given: tuple[Https, Files]) -> None:
    https, _ = given
    before = https.fingerprint
    pem = https.cli.data / ".deployer/tls.pem"
    whole = pem.read_bytes()
    broken = pem.with_name("broken")
    broken.write_bytes(whole[: len(whole) // 2])
    broken.replace(pem)
    deadline = time.monotonic() + PATIENCE
    while "the former certificate stays" not in https.cli.run("logs", "-n", "200").out:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert https.fingerprint == before
    assert https.cli.run("tls", "renew", "--json").data["changed"] is True
    assert pem.read_bytes() == whole


def test_tls_is_turned_off_and_on_again(given: tuple[Https, Files]) -> None:
    https, files = given
    up = https.cli.up("--no-pip")
    assert up.code == 0, up.err
    assert served(f"https://127.0.0.1:{https.port}") is None
    assert https.cli.run("status", "--json").data["tls"] is None
    refused = https.cli.run("tls", "renew")
    assert refused.code == 5 and "has no HTTPS" in refused.err
    up = https.cli.up(*https.words(*files_of(files)))
    assert up.code == 0, up.err
    with https.client(http2=True) as client:
        assert client.get("/+api").status_code == 200


def test_when_nginx_fails_devpi_serves_on_loopback_and_nobody_by_https(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("process")
    monkeypatch.setenv("DEPLOYER_WITHOUT_NGINX", "nginx ended with exit code 1, 5 times in a row")
    server, port = Server(tmp_path / "data"), free_port()
    try:
        server.start("--tls", f"127.0.0.1:{port}")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    finally:
        server.end()


# In a container


def test_a_container_publishes_both_ports(upstream: Upstream, tmp_path: Path) -> None:
    """On a volume, which only the container can write to."""
    need("docker")
    cli = Cli(home=tmp_path, engine="docker", upstream="http://127.0.0.1:9/simple/")
    https = Https(cli=cli, port=free_port(), ca=tmp_path / "ca.pem")
    words = ("--data", f"volume:{cli.name}", *https.words("--set", "network.tls.cert=auto"))
    try:
        up = cli.run("up", "--engine", "docker", "--network", "bridge", "--port", str(cli.port), *words)
        assert up.code == 0, up.err
        https.ca.write_text(cli.run("tls", "ca").out)
        with https.client(http2=True) as client:
            assert client.get("/+api").status_code == 200
        assert httpx.get(f"{cli.url}/+api", trust_env=False, timeout=PATIENCE).status_code == 200
        first = https.fingerprint
        (cli.home / "state" / cli.name / "tls/server.pem").unlink()
        renewed = cli.run("tls", "renew", "--json")
        assert renewed.code == 0, renewed.out
        assert renewed.data["changed"] is True and https.fingerprint != first
    finally:
        cli.clean()
