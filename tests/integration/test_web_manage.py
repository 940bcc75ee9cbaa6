"""The pages on which a logged-in user changes things, by raw requests as a browser without scripts sends them."""

from __future__ import annotations

import http.client
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import pytest

from tests.front import make_indexes
from tests.integration.cli import Cli
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
DEMO = make_wheel("demo", "1.0")
OWN = make_wheel("acme-own", "1.0")


@dataclass(frozen=True)
class Page:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def said(self) -> str:
        """What the page says of the form before it."""
        found = re.search(r'role="(?:status|alert)"[^>]*>(.*?)<', self.text)
        return unescape(found[1]) if found else ""

    @property
    def word(self) -> str:
        found = re.search(r'name="word" value="([0-9a-f]+)"', self.text)
        assert found, self.text
        return found[1]


@dataclass
class Browser:
    """A browser without scripts: it keeps cookies and follows redirects."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Page:
        return self._ask("GET", path, b"", headers)

    def post(self, path: str, fields: list[tuple[str, str]] | dict[str, str], **headers: str) -> Page:
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.origin}
        return self._ask("POST", path, urlencode(fields).encode(), {**kind, **headers})

    def upload(self, path: str, fields: dict[str, str], *files: tuple[str, bytes], **headers: str) -> Page:
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()
        ]
        body = "".join(parts).encode()
        for name, content in files:
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{name}"\r\n\r\n'
            body += head.encode() + content + b"\r\n"
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Origin": self.origin}
        return self._ask("POST", path, body + f"--{boundary}--\r\n".encode(), {**kind, **headers})

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str], hops: int = 5) -> Page:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        cookie = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body or None, headers={"Accept": HTML, **cookie, **named})
        answer = connection.getresponse()
        text = answer.read().decode()
        if sent := answer.headers["Set-Cookie"]:
            assert "HttpOnly; SameSite=Strict" in sent
            name, _, value = sent.partition(";")[0].partition("=")
            self.cookies.pop(name, None) if "Max-Age=0" in sent else self.cookies.update({name: value})
        connection.close()
        if answer.status == 303 and hops:
            target = urlsplit(answer.headers["Location"])
            assert target.netloc == f"127.0.0.1:{self.port}"
            return self._ask("GET", f"{target.path}?{target.query}", b"", {}, hops - 1)
        return Page(answer.status, dict(answer.headers.items()), text)

    def log_in(self, user: str, password: str) -> Page:
        return self.post("/+web/login", {"user": user, "password": password, "next": "/+web/manage"})

    def do(self, action: str, **fields: str) -> Page:
        word = self.get("/").word
        return self.post(f"/+web/do/{action}", {"word": word, **fields})


@pytest.fixture(scope="module", params=["nginx", "python"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    it = Server(tmp_path_factory.mktemp("web") / "server")
    with Upstream([DEMO]) as upstream:
        try:
            it.start("--front", request.param)
            make_indexes(it, upstream.simple_url)
            yield it
        finally:
            it.end()


@pytest.fixture(scope="module")
def root(server: Server) -> Browser:
    browser = Browser(server.port)
    assert browser.log_in("root", server.password).status == 200
    return browser


def test_a_wrong_password_logs_nobody_in(server: Server) -> None:
    browser = Browser(server.port)
    page = browser.log_in("root", "wrong")
    assert (page.status, page.said, browser.cookies) == (401, "This user and this password don't belong together.", {})
    assert "Log in" in browser.get("/+web/manage").text


def test_a_user_an_index_and_a_token_come_and_go(root: Browser, server: Server) -> None:
    page = root.do("create-user", user="eve", password="a long enough word", email="eve@example.com")
    assert page.said == "The user eve was created."
    assert root.do("create-user", user="eve", password="a long enough word", email="").status == 409
    assert root.do("create-user", user="ann", password="short", email="").said == "A password has 8 characters or more."
    page = root.do("create-index", user="eve", name="work", kind="stage", base="root/pypi", place="1")
    assert page.said == "The index eve/work was created."
    stored = request(server.port, "GET", "/eve/work")[1]["result"]
    assert (stored["bases"], stored["acl_upload"], stored["mirror_whitelist"]) == (["root/pypi"], ["eve"], [])
    assert (stored["acl_toxresult_upload"], stored["volatile"]) == ([], False)

    page = root.do("create-token", user="eve", allowed="upload", index="eve/work", project="", days="7")
    token = re.search(r'id="new-token"[^>]*>([^<]+)<', page.text)
    assert token, page.text
    listed = root.get("/+web/manage/eve").text
    assert token[1] not in listed
    assert "eve/work" in listed
    name = re.search(r'name="token" value="([^"]+)"', listed)
    assert name
    assert root.do("revoke-token", user="eve", token=name[1]).said == "The token was revoked."
    assert "No token yet." in root.get("/+web/manage/eve").text

    eve = Browser(server.port)
    assert eve.log_in("eve", "a long enough word").status == 200
    assert "Root changes accounts" in eve.get("/+web/manage/eve").text
    word = eve.get("/").word
    page = eve.upload("/+web/do/upload", {"word": word, "index": "eve/work"}, (OWN.filename, OWN.content))
    assert page.said == f"Uploaded {OWN.filename}."
    assert eve.upload("/+web/do/upload", {"word": word, "index": "root/dev"}, (OWN.filename, OWN.content)).status == 403
    page = eve.do("create-token", user="eve", allowed="pkg_read", index="eve/work", project="", days="30")
    assert re.search(r'id="new-token"[^>]*>devpi-', page.text), page.text
    listed = eve.get("/+web/manage/eve").text
    assert "eve/work,root/pypi" in listed  # what it inherits from: its page links there
    limited = {"user": "eve", "allowed": "upload+pkg_read", "index": "eve/work", "project": "demo", "days": "1"}
    assert "can't read" in eve.do("create-token", **limited).said
    assert eve.do("create-token", **{**limited, "user": "root", "project": ""}).status == 403
    name = re.search(r'name="token" value="([^"]+)"', listed)
    assert name
    assert eve.do("revoke-token", user="eve", token=name[1]).said == "The token was revoked."
    for action, fields in (
        ("create-user", {"user": "bob", "password": "a long enough word", "email": ""}),
        ("modify-index", {"index": "eve/work", "title": "mine", "acl_upload": "eve bob"}),
        ("set-password", {"user": "root", "password": "a long enough word"}),
        ("offline", {"offline": "on"}),
    ):
        assert eve.do(action, **fields).status == 403

    assert root.do("delete-user", user="eve", confirm="eve").said == "eve owns eve/work: delete these indexes first."
    assert root.do("delete-index", index="eve/work", confirm="work").said == "To delete it, type its name: eve/work."
    page = root.do("delete-index", index="eve/work", confirm="eve/work")
    assert page.said == "The index eve/work was deleted with its packages."
    assert root.do("delete-user", user="eve", confirm="eve").said == "The user eve was deleted."


def test_files_go_up_and_a_version_goes_away(root: Browser, server: Server) -> None:
    word = root.get("/+web/manage").word
    large = make_wheel("acme-own", "2.0", files={"data": bytes(range(256)) * 400})
    files = [(one.filename, one.content) for one in (OWN, large)]
    page = root.upload("/+web/do/upload", {"word": word, "index": "root/dev"}, *files)
    assert page.said == f"Uploaded {OWN.filename}, {large.filename}."
    listed = request(server.port, "GET", "/root/dev/acme-own", headers=server.auth)[1]["result"]
    assert sorted(listed) == ["1.0", "2.0"]
    page = root.upload("/+web/do/upload", {"word": word, "index": "root/dev"}, ("x-1.0-py3-none-any.whl", b"no zip"))
    assert page.said == "x-1.0-py3-none-any.whl is neither a wheel nor a source distribution."
    page = root.upload(
        "/+web/do/upload", {"word": word, "index": "root/dev"}, ("other-1.0-py3-none-any.whl", OWN.content)
    )
    assert page.said.startswith("other-1.0-py3-none-any.whl holds acme-own 1.0")
    page = root.upload("/+web/do/upload", {"word": word, "index": "root/dev"}, files[0], X_Requested_With="deployer")
    assert "X-Location" in page.headers or page.status >= 400
    page = root.do("remove", index="root/dev", project="acme-own", version="1.0", confirm="1.0")
    assert page.said == "acme-own 1.0 was removed from root/dev."
    listed = request(server.port, "GET", "/root/dev/acme-own", headers=server.auth)[1]["result"]
    assert sorted(listed) == ["2.0"]


def test_bases_are_put_in_order_and_two_mirrors_are_not_merged(root: Browser, server: Server) -> None:
    for name in ("one", "two"):
        assert root.do("create-index", user="root", name=name, kind="stage").said.startswith("The index")
    page = root.do("create-index", user="root", name="other", kind="mirror", url="http://127.0.0.1:9/simple/")
    assert page.said == "The index root/other was created."
    order = [("index", "root/dev"), ("title", "ours"), ("acl_upload", "root"), ("base", "root/two"), ("place", "2")]
    order += [("base", "root/one"), ("place", "1"), ("base", "root/pypi"), ("place", "3"), ("base", "")]
    word = root.get("/+web/manage").word
    assert root.post("/+web/do/modify-index", [("word", word), *order]).said == "root/dev was changed."
    stored = request(server.port, "GET", "/root/dev")[1]["result"]
    assert (stored["bases"], stored["title"]) == (["root/one", "root/two", "root/pypi"], "ours")
    page = root.post("/+web/do/modify-index", [("word", word), *order[:-1], ("base", "root/other")])
    assert page.said.startswith("root/dev would merge root/pypi and root/other")
    page = root.do("create-index", user="root", name="under", kind="stage", base="root/other", place="1")
    assert page.status == 200
    page = root.post("/+web/do/modify-index", [("word", word), *order[:-1], ("base", "root/under")])
    assert page.said.startswith("root/dev would merge")
    assert request(server.port, "GET", "/root/dev")[1]["result"]["bases"] == ["root/one", "root/two", "root/pypi"]


def test_no_other_site_and_no_stranger_changes_anything(root: Browser, server: Server) -> None:
    word = root.get("/+web/manage").word
    form = {"user": "mallory", "password": "a long enough word", "email": ""}
    for fields, headers in (
        ({"word": word, **form}, {"Origin": "http://evil.example.com"}),
        ({"word": word, **form}, {"Origin": "null"}),
        ({"word": word, **form}, {"Sec_Fetch_Site": "cross-site"}),
        ({"word": "0" * 32, **form}, {}),
        (form, {}),
    ):
        assert root.post("/+web/do/create-user", fields, **headers).status == 403
    stranger = Browser(server.port)
    assert "Log in" in stranger.post("/+web/do/create-user", {"word": word, **form}).text
    forged = Browser(server.port, {"deployer-session": "cm9vdDpub3RoaW5n"})
    assert "Log in" in forged.get("/+web/manage").text
    # The cookie is for our pages: the API takes it for nobody.
    cookie = f"deployer-session={root.cookies['deployer-session']}"
    assert request(server.port, "PUT", "/mallory", body={"password": "x" * 9}, headers={"Cookie": cookie})[0] == 403
    assert request(server.port, "GET", "/mallory")[0] == 404
    # A large body is read for a session only.
    assert stranger.upload("/+web/do/upload", {"index": "root/dev"}, ("a.whl", bytes(20_000))).status in (401, 403)
    for target in ("//evil.example.com", "/\\evil.example.com", "https://evil.example.com"):
        page = Browser(server.port)
        page.post("/+web/login", {"user": "root", "password": server.password, "next": target})  # follows to this host
        assert page.cookies


def test_the_server_goes_offline_and_online(root: Browser, server: Server) -> None:
    assert (
        root.do("offline", offline="on").said
        == "This server is offline: it serves what is stored here, and asks no upstream."
    )
    assert request(server.port, "GET", "/+deployer")[1]["offline"] is True
    root.do("offline", offline="off")
    assert request(server.port, "GET", "/+deployer")[1]["offline"] is False


def test_whoever_logs_out_is_logged_out(server: Server) -> None:
    browser = Browser(server.port)
    browser.log_in("root", server.password)
    page = browser.get("/")
    assert "Log out root" in page.text
    browser.post("/+web/logout", {"word": page.word})
    assert browser.cookies == {}
    assert "Log out" not in browser.get("/").text


def test_a_name_is_only_text(root: Browser) -> None:
    page = root.get("/+web/manage?done=" + quote("<script>alert(1)</script>"))
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;" in page.text


def test_open_logs_in_once_as_root(tmp_path: Path) -> None:
    cli = Cli(home=tmp_path, engine="process")
    try:
        assert (
            cli.run("up", "--no-pip", "--engine", "process", "--data", str(cli.data), "--port", str(cli.port)).code == 0
        )
        done = cli.run("open", "--print")
        assert done.code == 0, done.err
        path = done.out.strip().removeprefix(f"http://127.0.0.1:{cli.port}")
        browser, late = Browser(cli.port), Browser(cli.port)
        assert "Log out root" in browser.get(path).text
        assert late.get(path).said.startswith("This address was used already")
        assert late.cookies == {}
        assert "code=" not in (cli.data / ".deployer/log/access.log").read_text()
        assert cli.run("open", "--print", "--anonymous").out.strip() == f"http://127.0.0.1:{cli.port}/"
        overview = browser.get("/+web/manage").text
        assert "Everything is as the profile" in overview
        assert "There is none yet" in overview
        kept = str(tmp_path / "backups")
        assert cli.run("backup", "create", "--directory", kept).code == 0
        assert cli.run("index", "modify", "root/dev", "volatile=true").code == 0
        overview = browser.get("/+web/manage").text
        assert re.search(r"root/dev</th><td>volatile</td><td>nothing</td><td>yes", overview), overview
        assert "The last one" in overview
        assert cli.run("index", "apply").code == 0
        assert "Everything is as the profile" in browser.get("/+web/manage").text
        code = cli.run("open", "--json").data["address"].rpartition("=")[2]
        assert request(cli.port, "POST", "/+deployer/open", body={"proof": code})[0] == 403
    finally:
        cli.clean()
