"""Behind somebody's proxy with TLS, a name and a path of its own: what real clients get, and which errors are found."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import pytest

from deployer.diagnosis.outside import checks
from deployer.operations.outside import Here, through
from tests.front import PIP, need_nginx
from tests.fronting_proxy import FrontingProxy, Site
from tests.integration.cli import Cli
from tests.integration.installers import pip, uv
from tests.integration.real_clients import Clients
from tests.plain_devpi import free_port
from tests.server_process import PATIENCE, request
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server

PASSED_ON = """
    client_max_body_size 0;
    location /pypi/ {{
      proxy_pass http://127.0.0.1:{server}{path};
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      {more}
    }}"""


WRONG = {
    "path": ("location /pypi/ {{ proxy_pass {server}/other/; }}", "change nothing else of the path"),
    "host": ("location /pypi/ {{ proxy_pass {server}/; proxy_set_header Host a.example; }}", "proxy_set_header Host"),
    "login": ("location /pypi/ {{ auth_basic x; auth_basic_user_file /dev/null; }}", "own login off"),
    "absent": ("location /pypi/ {{ proxy_pass http://127.0.0.1:9/; }}", "have the proxy pass /pypi to {server}/"),
    "other": ("location / {{ return 200 hello; }}", "have the proxy pass /pypi to {server}/"),
    "moved": ("location / {{ return 301 https://localhost:1$request_uri; }}", "to https://localhost:1/pypi"),
    "headers": (
        "location /pypi/ {{ proxy_pass {server}/; proxy_set_header X-Deployer-Nonce ''; }}",
        "X-Deployer-Nonce",
    ),
    "body": ("location /pypi/ {{ proxy_pass {server}/; }}", "client_max_body_size 0;"),
    "auth": ("location /pypi/ {{ proxy_pass {server}/; proxy_set_header Authorization ''; }}", "have it pass Auth"),
    "files": (
        "location /pypi/ {{ proxy_pass {server}/; }} location ~ whl$ {{ return 404; }}",
        "pass every path, with + and %",
    ),
    "unnamed": ("location /pypi/ {{ proxy_pass {server}/; }}", "X-Forwarded-For $proxy_add_x_forwarded_for"),
    "elsewhere": ("location /pypi/ {{ proxy_pass {server}/; }}", "deployer up"),
}
"""Blocks of nginx with one error each, and what the cure says."""

WELL = "{url} leads here: login, uploads and a file link"


@dataclass(frozen=True, kw_only=True)
class World:
    """``stripped`` takes the prefix away, ``kept`` passes it on."""

    cli: Cli
    proxy: FrontingProxy
    upstream: Upstream
    stripped: int
    kept: int
    wrong: Mapping[str, int]
    words: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.stripped}/pypi"

    def ask(self, path: str, headers: dict[str, str] | None = None, *, port: int = 0, client: str = "127.0.0.1"):  # type: ignore[no-untyped-def]
        """Status, headers and body of ``path`` below the prefix, asked from the address ``client``."""
        context = ssl.create_default_context(cafile=str(self.proxy.ca))
        connection = http.client.HTTPSConnection(
            "localhost", port or self.stripped, timeout=PATIENCE, context=context, source_address=(client, 0)
        )
        try:
            connection.request("GET", f"/pypi{path}", headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def logged(self, path: str, sender: str, *, port: int, client: str) -> dict[str, object]:
        """Ask until ``sender`` answers, which it does once the answer is stored; that line of the access log."""
        found: list[dict[str, object]] = []

        def sent() -> bool:
            assert self.ask(path, PIP, port=port, client=client)[0] == 200
            lines = map(json.loads, (self.cli.data / ".deployer/log/access.log").read_text().splitlines())
            found.extend(line for line in lines if (line["client"], line["from"]) == (client, sender))
            return bool(found)

        until(sent, f"{sender} answers {path}")
        return found[0]


def until(true: Callable[[], bool], what: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    need_nginx()
    home = tmp_path_factory.mktemp("outside")
    cli, stripped, kept = Cli(home=home, engine="process", network="host"), free_port(), free_port()
    sites = [
        Site(port=stripped, block=PASSED_ON.format(server=cli.port, path="/", more="")),
        Site(port=kept, block=PASSED_ON.format(server=cli.port, path="", more="")),
    ]
    wrong = {name: free_port() for name in WRONG}
    server = f"http://127.0.0.1:{cli.port}"
    sites += [Site(port=port, block=WRONG[name][0].format(server=server)) for name, port in wrong.items()]
    proxy = FrontingProxy(home / "proxy", sites)
    cli.extra["SSL_CERT_FILE"] = str(proxy.ca)
    with Upstream([make_wheel("demo", "1.0")]) as upstream:
        cli.upstream = upstream.simple_url
        proxy.start()
        try:
            words = (
                *("--set", f"network.outside_url=https://localhost:{stripped}/pypi"),
                *("--set", 'network.trusted_proxies=["127.0.0.1"]'),
                *("--set", "indexes.root/work.type=stage", "--set", "indexes.root/work.acl_upload=[root]"),
            )
            up = cli.up("--no-pip", *words)
            assert up.code == 0, up.err
            yield World(cli=cli, proxy=proxy, upstream=upstream, stripped=stripped, kept=kept, wrong=wrong, words=words)
        finally:
            proxy.stop()
            cli.clean()


@pytest.mark.parametrize("port", ["stripped", "kept"])
def test_installers_get_packages_and_stored_pages(world: World, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(world.proxy.ca))
    number, client = {"stripped": (world.stripped, "127.0.0.8"), "kept": (world.kept, "127.0.0.7")}[port]
    base = f"https://localhost:{number}/pypi"
    for done in (
        pip(f"{base}/root/dev/+simple/", "demo"),
        uv(f"{base}/root/dev/+simple/", "demo"),
    ):
        assert done.versions == {"demo-1.0"}, done.told
    page = "/root/dev/+simple/demo/"
    world.ask(page, PIP, port=number)
    status, _, body = world.ask(page, PIP, port=number)
    assert status == 200
    address = urljoin(f"{base}{page}", json.loads(body)["files"][0]["url"]).partition("#")[0]
    assert address.startswith(f"{base}/root/pypi/+f/")
    # Stored pages and files come from nginx, and its log names the proxy's client.
    for sender, path in (("page", page), ("file", address.removeprefix(base))):
        line = world.logged(path, sender, port=number, client=client)
        assert (line["path"], line["index"]) == (path, "/".join(path.split("/")[1:3]))


def test_devpi_client_and_twine_publish_through_it(world: World, tmp_path: Path) -> None:
    """The server names addresses for a login and for uploads: both lead through the proxy."""
    clients = Clients(world.cli, tmp_path)
    trust = {"REQUESTS_CA_BUNDLE": str(world.proxy.ca)}
    password = (world.cli.data / ".deployer/root-password").read_text().strip()
    where = ("--clientdir", str(tmp_path / "devpi"))
    large = {"large.bin": "x" * (2 << 20)}
    for number, sender in enumerate(("devpi", "twine")):
        wheel = make_wheel("mine", f"1.{number}", files=large)
        path = tmp_path / wheel.filename
        path.write_bytes(wheel.content)
        if sender == "twine":
            steps = [("twine", "upload", "--non-interactive", "--disable-progress-bar")]
            steps[0] += ("--repository-url", f"{world.url}/root/work/", str(path))
        else:
            steps = [("devpi", "use", *where, f"{world.url}/root/work"), ("devpi", "login", *where, "root")]
            steps[1] += ("--password", password)
            steps.append(("devpi", "upload", *where, str(path)))
        for program, *words in steps:
            done = clients.run(program, *words, TWINE_USERNAME="root", TWINE_PASSWORD=password, **trust)
            assert done.returncode == 0, done.stdout + done.stderr
    status, _, body = world.ask("/root/work/+simple/mine/", PIP)
    files = [one["filename"] for one in json.loads(body)["files"]]
    assert (status, len(files)) == (200, 2)


def test_pages_for_browsers_stay_below_the_path(world: World) -> None:
    browser = {"Accept": "text/html", "User-Agent": "Mozilla/5.0"}
    for port in (world.stripped, world.kept):
        for path in ("/", "/root/dev", "/root/work/"):
            status, _, body = world.ask(path, browser, port=port)
            assert status == 200, path
            page = f"https://localhost:{port}/pypi{path}"
            links = {urljoin(page, link) for link in re.findall(r'(?:href|src|action)="([^"#]+)"', body)}
            ours = {link for link in links if link.startswith(f"https://localhost:{port}/")}
            assert ours
            assert all(link.startswith(f"https://localhost:{port}/pypi/") for link in ours), ours
            styles = [link for link in ours if link.endswith(".css")]
            for link in styles:
                assert world.ask(link.partition("/pypi")[2], port=port)[0] == 200


def test_the_canonical_view_is_below_the_path(world: World) -> None:
    status, _, body = world.ask("/root/pypi/+canonical/simple/demo/", PIP)
    assert status == 200
    host, _, path = json.loads(body)["files"][0]["url"].removeprefix("http://").partition("/")
    for port in (world.stripped, world.kept):
        assert world.ask(f"/root/pypi/+canonical/hosts/{host}/{path.partition('#')[0]}", port=port)[0] == 200


def test_headers_of_strangers_change_no_address(world: World) -> None:
    """Addresses are those of the outside URL, whoever asks, through the proxy or past it."""
    strange = {
        "X-Outside-URL": "https://evil.example/x",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Prefix": "/evil",
        "X-Script-Name": "/evil",
        "Forwarded": "host=evil.example;proto=http",
    }
    status, _, body = world.ask("/root/work/+api", {**strange, "Accept": "application/json"})
    assert status == 200
    told = json.loads(body)["result"]
    assert told["login"] == f"{world.url}/+login"
    assert (told["index"], told["pypisubmit"]) == (f"{world.url}/root/work", f"{world.url}/root/work/")
    direct = request(world.cli.port, "GET", "/root/work/+api", headers=strange)
    assert direct == (200, json.loads(body))
    assert "evil" not in world.ask("/root/dev/+simple/demo/", {**PIP, **strange, "X-Devpi-Absolute-Urls": ""})[2]


def outside_of(world: World) -> list[dict[str, str]]:
    return [one for one in world.cli.run("doctor", "--json").data["checks"] if one["name"] == "outside"]


def test_the_doctor_asks_through_the_proxy(world: World) -> None:
    assert world.ask("/root/dev/+simple/demo/", PIP)[0] == 200
    found = json.loads(world.ask("/root/dev/+simple/demo/", PIP)[2])["files"][0]["url"]
    path = urljoin("/root/dev/+simple/demo/", found).partition("#")[0]
    assert world.ask(path)[0] == 200
    # What is stored is noted after it was sent; a slow machine may not answer in time.
    until(
        lambda: [one["evidence"] for one in outside_of(world)] == [WELL.format(url=world.url)], "the doctor is content"
    )
    until(lambda: f"{world.url} leads here" in world.cli.up("--no-pip", *world.words).err, "up says so")
    world.proxy.stop()
    try:
        (told,) = outside_of(world)
        assert (told["level"], "can't be asked from this host" in told["evidence"]) == ("warning", True), told
    finally:
        world.proxy.start()


@pytest.mark.parametrize("error", WRONG)
def test_an_error_of_the_proxy_is_named_with_its_cure(world: World, error: str) -> None:
    private = world.cli.data / ".deployer"
    identity = request(world.cli.port, "GET", "/+deployer")[1]
    assert world.ask("/root/dev/+simple/demo/", PIP)[0] == 200
    here = Here(
        uuid=identity["uuid"],
        proof_key=(private / "proof-key").read_text().strip(),
        index="root/work",
        stored=("root/dev", "demo"),
        ca_file=world.proxy.ca,
    )
    url, server = f"https://localhost:{world.wrong[error]}/pypi", f"http://127.0.0.1:{world.cli.port}"
    cure = WRONG[error][1].format(server=server)

    said: list[str] = []

    def found() -> bool:
        told = [*checks(url, server, through(url, here, early=PATIENCE if error == "body" else 0.01), trusted=True)]
        said[:] = [f"{one.level}: {one.evidence} -> {one.cure}" for one in told]
        return any(cure in one.cure for one in told if one.level != "ok")

    until(found, lambda: f"{cure} in {said}")


def test_the_commands_of_this_host_need_no_proxy(world: World) -> None:
    """What the server names is the outside URL; the command line asks its own address."""
    world.proxy.stop()
    try:
        assert world.cli.run("package", "list", "--index", "root/dev").code == 0
        assert world.cli.run("status", "--check").code == 0
        got = world.cli.run("exec", "--", "pip", "download", "--no-deps", "--dest", str(world.cli.home / "got"), "demo")
        assert got.code == 0, got.err
    finally:
        world.proxy.start()
