"""What the rules of a mirror hold back comes in by no way, with any client; what they let in comes as ever."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

from deployer.operations.rules import report
from deployer.protocol import OFFLINE_HEADER, Report
from tests.client_requests import recorded
from tests.indexed_server import FILE, HTML, JSON, Got, get, upload
from tests.integration.installers import INSTALLERS
from tests.integration.test_as_direct import POETRY
from tests.integration.test_offline import switch
from tests.server_process import Server, request
from tests.upstream import JSON_TYPE, Answer, Distribution, Upstream, make_sdist, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Case:
    """A project with an old release, which is let in, and two new ones, which are held back."""

    project: str
    text: str = ""

    def _files(self, version: str) -> dict[str, str]:
        return {f"{self.project}.py": f"version = {version!r}{self.text}\n"}

    @cached_property
    def old(self) -> tuple[Distribution, Distribution]:
        """A wheel and an sdist."""
        return make_wheel(self.project, "1.0"), make_sdist(self.project, "1.0")

    @cached_property
    def new(self) -> tuple[Distribution, Distribution]:
        made = self._files("2.0")
        return make_wheel(self.project, "2.0", files=made), make_sdist(self.project, "2.0", files=made)

    @cached_property
    def cold(self) -> Distribution:
        """Held back as well; nobody has fetched it before there were rules."""
        return make_wheel(self.project, "2.1", files=self._files("2.1"))

    @property
    def held(self) -> tuple[Distribution, ...]:
        return (*self.new, self.cold)

    @property
    def warm(self) -> tuple[Distribution, ...]:
        return (*self.old, *self.new)

    @property
    def let_in(self) -> set[str]:
        return {made.filename for made in self.old}

    @property
    def advisories(self) -> dict[str, Any]:
        return {"names": {self.project: {"2": "MAL-2025-7", "2.1": "MAL-2025-7"}}}


DEMO, MALWARE, REPLACED, FIRST = Case("demo"), Case("malware"), Case("replaced"), Case("replaced", " # at first")
OLD, OLD_SDIST = DEMO.old
NEW, NEW_SDIST = DEMO.new
COLD, HELD = DEMO.cold, DEMO.held
_RECORDED = {name.partition(" ")[0]: sent for name, sent in recorded().items()}
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "User-Agent": "Mozilla/5.0"}
RULES: Mapping[str, Mapping[str, object]] = {
    "min_age": {"min_age": "7d"},
    "before": {"before": "2026-01-01"},
    "deny": {"deny": ["demo>=2"]},
    "allow": {"allow": ["demo<2", "other"]},
    "malicious": {},
    "changed": {"deny": ["other"]},
}
"""By rule, the attributes of the mirror on which it is tried; malicious releases are a file's."""
CASES = dict.fromkeys(RULES, DEMO) | {"malicious": MALWARE, "changed": REPLACED}
INDEXES = {rule: f"root/{rule.replace('_', '-')}" for rule in RULES}


@dataclass(frozen=True)
class Client:
    """What a client sends for a page and for a file."""

    page: Mapping[str, str]
    file: Mapping[str, str]

    @classmethod
    def of(cls, name: str) -> Client:
        """As it was recorded."""
        page = next(sent for sent in _RECORDED[name] if "/+simple/" in sent.target)
        file = next(sent for sent in _RECORDED[name] if sent.target.endswith(".whl"))
        kept = ("accept", "user-agent", "accept-encoding")
        headers = ({key: value for key, value in sent.headers if key.lower() in kept} for sent in (page, file))
        return cls(*({**one, "Accept-Encoding": "identity"} for one in headers))


CLIENTS = {name: Client.of(name) for name in ("pip", "uv", "poetry")} | {"browser": Client(BROWSER, BROWSER)}


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def page_of(upstream: Upstream, project: str, dated: Sequence[tuple[Distribution, str | None]]) -> dict[str, Any]:
    files = [
        {
            "filename": made.filename,
            "url": f"{upstream.url}/packages/{made.filename}",
            "hashes": {"sha256": made.sha256},
            "size": len(made.content),
            "provenance": f"{upstream.url}/provenance/{made.filename}",
            "gpg-sig": True,
        }
        | ({"core-metadata": {"sha256": hashlib.sha256(made.metadata).hexdigest()}} if made.metadata else {})
        | ({"upload-time": when} if when else {})
        for made, when in dated
    ]
    versions = list(dict.fromkeys(made.version for made, _ in dated))
    return {"meta": {"api-version": "1.1"}, "name": project, "versions": versions, "files": files}


def publish(upstream: Upstream, project: str, *dated: tuple[Distribution, str | None]) -> None:
    """The project's page, JSON API, files and what belongs to them."""
    page = page_of(upstream, project, dated)
    upstream.answers[f"/simple/{project}/"] = Answer(body=json.dumps(page).encode(), kind=JSON_TYPE)
    api = [
        {
            "filename": made.filename,
            "upload_time_iso_8601": when,
            "digests": {"sha256": made.sha256},
            "version": made.version,
        }
        for made, when in dated
    ]
    releases = {
        made.version: [
            {key: file[key] for key in file if key != "version"} for file in api if file["version"] == made.version
        ]
        for made, _ in dated
    }
    for version, urls in releases.items():
        body = json.dumps({"info": {"version": version}, "urls": urls}).encode()
        upstream.answers[f"/pypi/{project}/{version}/json"] = Answer(body=body, kind="application/json")
    latest = next(reversed(releases), "")
    whole = {"info": {"version": latest}, "urls": releases.get(latest, []), "releases": releases}
    upstream.answers[f"/pypi/{project}/json"] = Answer(body=json.dumps(whole).encode(), kind="application/json")
    for made, _ in dated:
        upstream.answers[f"/packages/{made.filename}"] = Answer(body=made.content)
        upstream.answers[f"/packages/{made.filename}.metadata"] = Answer(body=made.metadata)
        upstream.answers[f"/packages/{made.filename}.asc"] = Answer(body=b"signature")
        upstream.answers[f"/provenance/{made.filename}"] = Answer(body=b"{}", kind="application/json")


def release(upstream: Upstream, case: Case) -> None:
    old, new = ago(days=30 * 36), ago(hours=1)
    publish(upstream, case.project, *((made, old) for made in case.old), *((made, new) for made in case.held))


def place(made: Distribution) -> str:
    return f"+f/{made.sha256[:3]}/{made.sha256[3:16]}/{made.filename}"


@dataclass
class Lab:
    server: Server
    upstream: Upstream
    home: Path
    auth: dict[str, str] = field(default_factory=dict)
    kinds: tuple[str, str] = ("mirror", "stage")
    client: Client = Client(JSON, FILE)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Got:
        return get(self.server.port, path, self.client.file if headers is None else headers, method)

    def page(self, index: str, project: str = "demo") -> dict[str, Any]:
        return self.read(f"/{index}/+simple/{project}/")

    def read(self, path: str) -> dict[str, Any]:
        """A page, of which HTML has the names and hashes of files."""
        got = self.get(path, self.client.page)
        assert got.status == 200, got
        if "json" in got.headers["content-type"]:
            found: dict[str, Any] = json.loads(got.body)
            return found
        text = got.body.decode()
        links = re.findall(r'<a [^>]*href="[^"]*/\+[ef]/[^"]*/([^"#/]+)(?:#sha256=(\w+))?"', text)
        return {"files": [{"filename": unquote(name), "hashes": {"sha256": digest}} for name, digest in links]}

    def names(self, index: str, project: str = "demo") -> set[str]:
        return {file["filename"] for file in self.page(index, project)["files"]}

    def file(self, index: str, made: Distribution, suffix: str = "", method: str = "GET", **headers: str) -> Got:
        return self.get(f"/{index}/{place(made)}{suffix}", {**self.client.file, **headers}, method)

    @contextmanager
    def ruled(self, rule: str, client: str = "") -> Iterator[None]:
        """With the list of malicious releases, if that is the rule; as one of the ``CLIENTS``."""
        before, file = self.client, self.server.private / "malicious.json"
        self.client = CLIENTS.get(client, before)
        try:
            if rule == "malicious":
                file.write_text(json.dumps(MALWARE.advisories))
                self.get("/+deployer")  # the server reads it before it answers
            yield
        finally:
            self.client = before
            if rule == "malicious":
                file.unlink()
                self.get("/+deployer")

    def mirror(self, index: str, **more: object) -> None:
        kind = self.kinds[0]
        told = {f"{kind}_url": self.upstream.simple_url, f"{kind}_no_project_list": True, "volatile": True, **more}
        self.put(index, type=kind, **told)

    def put(self, index: str, **config: object) -> None:
        status, answer = request(self.server.port, "PUT", f"/{index}", body=config, headers=self.auth)
        assert status == 200, answer

    def patch(self, index: str, **config: object) -> None:
        status, known = request(self.server.port, "GET", f"/{index}", headers=self.auth)
        assert status == 200, known
        body = {key: value for key, value in known["result"].items() if key != "projects"} | config
        status, answer = request(self.server.port, "PATCH", f"/{index}", body=body, headers=self.auth)
        assert status == 200, answer


@pytest.fixture
def seven(python7: str, tmp_path: Path) -> Iterator[Lab]:
    """A server with devpi-server 7: one mirror with a rule, filled before."""
    server = Server(tmp_path / "data", python=python7)
    with Upstream() as upstream:
        upstream.ranges = True
        release(upstream, DEMO)
        try:
            server.start("--request-timeout", "10", "--web", "devpi-web")
            lab = Lab(server, upstream, tmp_path, server.auth, kinds=("remote", "local"))
            fill(lab, "root/min-age")
            lab.patch("root/min-age", **RULES["min_age"])
            yield lab
        finally:
            server.end()


def fill(lab: Lab, index: str, case: Case = DEMO) -> None:
    """A mirror, a stage and an ordered index above it, and everything cached."""
    lab.mirror(index)
    lab.put(f"{index}-dev", type=lab.kinds[1], bases=[index], volatile=True)
    lab.put(f"{index}-first", type="ordered", bases=[index], volatile=True)
    if case is REPLACED:
        assert lab.names(index, case.project) == {made.filename for made in (*FIRST.old, *FIRST.held)}
        release(lab.upstream, REPLACED)
        refreshed(lab, index, case.project)
    fetched(lab, index, case)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Mirrors with the rules of one kind each, a stage and an ordered index above each, and one without rules.

    All files but one were fetched before there were rules, so that the server and nginx have them.
    """
    directory = tmp_path_factory.mktemp("guard")
    server = Server(directory / "data")
    with Upstream() as upstream:
        upstream.ranges = True
        for case in (DEMO, MALWARE, FIRST):
            release(upstream, case)
        try:
            server.start("--request-timeout", "10", "--web", "manage", "--push-to", "http://127.0.0.1:9")
            found = Lab(server, upstream, directory, server.auth)
            for rule, index in INDEXES.items():
                fill(found, index, CASES[rule])
            fill(found, "root/open")
            for rule, index in INDEXES.items():
                found.patch(index, **RULES[rule])
            yield found
        finally:
            server.end()


def fetched(lab: Lab, index: str, case: Case) -> None:
    """Have everything cached, in every view."""
    project = case.project
    for above in (index, f"{index}-dev", f"{index}-first"):
        assert lab.names(above, project) == {made.filename for made in (*case.old, *case.held)}
    for made in case.warm:
        assert lab.file(index, made).body == made.content
        for suffix in (".provenance", ".asc", *((".metadata",) if made.metadata else ())):
            assert lab.file(index, made, suffix).status == 200, suffix
        for view in views(lab, index):  # nginx sends these from then on
            assert lab.get(f"{view}/packages/{made.filename}").body == made.content
    assert lab.get(f"/{index}/+canonical/pypi/{project}/json").status == 200
    assert lab.get(f"/{index}/+canonical/simple/{project}/", JSON).status == 200
    assert lab.get(f"/{index}/{project}", BROWSER).status == 200


def views(lab: Lab, index: str) -> tuple[str, str]:
    """What the paths of files in the canonical view begin with: without a host, and with one."""
    return f"/{index}/+canonical/packages", f"/{index}/+canonical/hosts/127.0.0.1:{lab.upstream.port}"


# The ways around


def direct(lab: Lab, index: str, held: str) -> None:
    case = CASES[held]
    for made in case.held:
        for method in ("GET", "HEAD"):
            got = lab.file(index, made, method=method)
            assert (got.status, got.headers["x-deployer-held"]) == (403, held)
            if method == "GET":
                assert re.fullmatch(
                    f"{re.escape(made.filename)} is held back.* by {held} of {index}: .+\n", got.body.decode()
                )
        for spelled in (
            f"/{index}/{place(made)}/",
            f"/{index}/{place(made)}%23x",
            f"/{index}/{place(made)}?x=1",
            f"/{index}/{place(made).replace('+f', '%2Bf')}",
            f"/{index}/{place(made).replace('+f/', '+f//')}",
            f"/{index}/./{place(made)}",
            f"//{index}/{place(made)}",
            f"/{index}/{place(made).replace(case.project, f'%{ord(case.project[0]):x}{case.project[1:]}')}",
            f"/root/open/../{index.partition('/')[2]}/{place(made)}",
        ):
            got = lab.get(spelled)
            assert got.status in (403, 404) and made.content not in got.body, spelled
            assert lab.file(index, made).status == 403, spelled  # it was no request for another address of nginx
        assert lab.file(index, made, **{OFFLINE_HEADER: "1"}).status == 403
        for accept in ("application/json", "text/html", ""):
            assert lab.file(index, made, Accept=accept).status == 403


def other_index(lab: Lab, index: str, held: str) -> None:
    case = CASES[held]
    for above in (f"{index}-dev", f"{index}-first"):
        assert lab.names(above, case.project) == case.let_in, held
        assert (
            case.new[0].filename
            not in lab.get(f"/{above}/+simple/{case.project}/", HTML).body.decode().partition("<!--")[0]
        )
        as_if_offline = json.loads(lab.get(f"/{above}/+simple/{case.project}/", {**JSON, OFFLINE_HEADER: "1"}).body)
        assert {file["filename"] for file in as_if_offline["files"]} == case.let_in
        for made in case.held:  # no file of a mirror is below another index
            got = lab.file(above, made)
            assert got.status in (403, 404) and made.content not in got.body


def old_cache(lab: Lab, index: str, held: str) -> None:
    case = CASES[held]
    assert (lab.server.serverdir / "+files" / index / place(case.new[0])).exists()
    for _ in range(2):  # the first answer might have had nginx know of the file
        assert lab.file(index, case.new[0]).status == 403, held
        assert lab.file(index, case.old[0]).body == case.old[0].content
    assert (
        lab.file(
            index, case.new[0], **{"If-None-Match": "*", "If-Modified-Since": "Thu, 01 Jan 2099 00:00:00 GMT"}
        ).status
        == 403
    )
    assert (
        case.cold.content
        not in lab.get(f"/{index}/+simple/{case.project}/", {**JSON, "Cache-Control": "no-cache"}).body
    )


def ranges(lab: Lab, index: str, held: str) -> None:
    case = CASES[held]
    for made in case.held:
        for asked in ("bytes=0-9", "bytes=-9", "bytes=0-", "bytes=5-,7-9"):
            got = lab.file(index, made, Range=asked)
            assert (got.status, got.headers["x-deployer-held"]) == (403, held)
    assert lab.file(index, case.old[0], Range="bytes=0-9").body == case.old[0].content[:10]


def companions(lab: Lab, index: str, held: str) -> None:
    case = CASES[held]
    for made in case.held:
        for suffix in (".metadata", ".provenance", ".asc"):
            assert lab.file(index, made, suffix).status == 403, (held, suffix)
    for suffix in (".metadata", ".provenance", ".asc"):
        assert lab.file(index, case.old[0], suffix).status == 200


def canonical(lab: Lab, index: str, held: str) -> None:
    case = CASES[held]
    view = f"/{index}/+canonical"
    page = json.loads(lab.get(f"{view}/simple/{case.project}/", JSON).body)
    assert {file["filename"] for file in page["files"]} == case.let_in
    for made in case.held:
        for suffix in ("", ".metadata", ".asc"):
            for one in views(lab, index):
                assert lab.get(f"{one}/packages/{made.filename}{suffix}").status in (403, 404), (held, one)
        assert lab.get(f"{view}/pypi/{case.project}/{made.version}/json").status == 403, held
    assert lab.get(f"{view}/packages/packages/{case.old[0].filename}").body == case.old[0].content
    # Not 404, after which a transparent client asks the upstream itself.
    assert lab.get(f"{view}/packages/elsewhere/{case.new[0].filename}").status == 403
    whole = json.loads(lab.get(f"{view}/pypi/{case.project}/json").body)
    assert (whole["info"]["version"], list(whole["releases"])) == ("1.0", ["1.0"])
    assert json.loads(lab.get(f"{view}/pypi/{case.project}/1.0/json").body)["info"]["version"] == "1.0"


def web_page(lab: Lab, index: str, held: str) -> None:
    case = CASES[held]
    for above in (index, f"{index}-dev", f"{index}-first"):
        assert (
            f"<p>{case.new[0].filename} is held back"
            in lab.get(f"/{above}/+simple/{case.project}/", BROWSER).body.decode()
        )
        for path in (
            f"/{above}/{case.project}",
            f"/{above}/{case.project}/2.0",
            f"/{above}/+simple/{case.project}/",
            f"/{above}/{case.project}/latest",
        ):
            got = lab.get(path, BROWSER)
            shown = re.sub(
                r"<!--.*?-->|<p>[^<]* is held back[^<]*</p>|<li><strong>[^<]+</strong>: .*", "", got.body.decode()
            )
            assert (
                case.new[0].filename not in shown
                and place(case.new[0]) not in shown
                and case.new[0].sha256 not in shown
            ), (held, path)


def devpi_client(lab: Lab, index: str, held: str) -> None:
    case = CASES[held]
    home = lab.home / index.replace("/", "-")
    home.mkdir(exist_ok=True)

    def devpi(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "devpi"), verb, "--clientdir", str(home / "devpi"), *words]
        env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "NO_COLOR": "1"}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False, cwd=home)

    for words in (
        ("use", f"{lab.url}/{index}-dev"),
        ("login", "root", "--password", lab.server.password),
    ):
        done = devpi(*words)
        assert done.returncode == 0, done.stdout + done.stderr
    listed = devpi("list", "--all", case.project).stdout
    assert case.old[0].filename in listed and case.new[0].filename not in listed and "2.0" not in listed, held
    pushed = devpi("push", "--index", f"{lab.url}/{index}", f"{case.project}==2.0", f"{index}-dev")
    assert pushed.returncode != 0 or case.new[0].filename not in lab.names(f"{index}-dev", case.project), pushed.stdout
    status, known = request(lab.server.port, "GET", f"/{index}/{case.project}")
    assert status == 200 and "2.0" not in known["result"]
    assert request(lab.server.port, "GET", f"/{index}/{case.project}/2.0")[0] == 404
    for source in (index, f"{index}-dev"):  # the server's own view
        told = {"name": case.project, "version": "2.0", "targetindex": f"{index}-dev"}
        assert request(lab.server.port, "PUSH", f"/{source}", body=told, headers=lab.auth)[0] in (400, 403, 404)
    assert lab.names(f"{index}-dev", case.project) == case.let_in


def same_name(lab: Lab, index: str, held: str) -> None:
    case = CASES[held]
    own = make_wheel(case.project, "2.0", files={f"{case.project}.py": "version = 'own'\n"})
    stage = f"{index}-dev"
    assert upload(lab.server, lab.auth, stage, own) == 200
    try:
        page = lab.page(stage, case.project)
        assert {file["hashes"]["sha256"] for file in page["files"] if file["filename"] == own.filename} == {own.sha256}
        assert case.cold.filename not in {file["filename"] for file in page["files"]}
        assert lab.file(stage, own).body == own.content  # an upload is its index's, and no rule of a mirror is for it
        assert lab.file(index, case.new[0]).status == 403, held
        assert lab.file(stage, case.new[0]).status == 404
    finally:
        assert request(lab.server.port, "DELETE", f"/{stage}/{case.project}", headers=lab.auth)[0] == 200


WAYS = (direct, other_index, old_cache, ranges, companions, canonical, web_page, devpi_client, same_name)


TRIES = [(client, way) for way in WAYS for client in (CLIENTS if way is not devpi_client else ("pip",))]


@pytest.mark.parametrize(("client", "way"), TRIES, ids=lambda one: one if isinstance(one, str) else one.__name__)
@pytest.mark.parametrize("rule", RULES)
def test_no_way_leads_around_a_rule(lab: Lab, rule: str, client: str, way: Any) -> None:
    held = CASES[rule].held
    sent = {made.filename: lab.upstream.sent(f"/packages/{made.filename}") for made in held}
    with lab.ruled(rule, client):
        way(lab, INDEXES[rule], rule)
        # Nothing was fetched either.
        assert {made.filename: lab.upstream.sent(f"/packages/{made.filename}") for made in held} == sent
        assert lab.file("root/open", NEW).body == NEW.content


@pytest.mark.parametrize("installer", INSTALLERS)
@pytest.mark.parametrize("rule", RULES)
def test_installers_take_the_newest_that_is_let_in(lab: Lab, rule: str, installer: str) -> None:
    install, index, case = INSTALLERS[installer], INDEXES[rule], CASES[rule]
    mirror, ordered = (f"{lab.url}/{index}{above}/+simple/" for above in ("", "-first"))
    address = f"{case.project} @ {lab.url}/{index}/{place(case.new[0])}"
    canonical = f"{lab.url}/{index}/+canonical/simple/"
    tried = [(ordered, case.project), (canonical, f"{case.project}==2.0"), (mirror, address)]
    with lab.ruled(rule), ThreadPoolExecutor(2) as pool:
        newest, *asked = pool.map(lambda words: install(*words), tried)
    assert newest.versions == {f"{case.project}-1.0"}, newest
    assert not any(one.succeeded for one in asked), asked
    assert not any(f"{case.project}-2.0" in version for one in asked for version in one.versions)
    assert shown(rule) in " ".join(asked[-1].told.split())


def shown(rule: str) -> str:
    """What installers show of the status line, up to the time of the day."""
    until = f" until {ago(days=-7, hours=1)[:11]}" if rule == "min_age" else f" by {rule}"
    return f"Held back{until}"


def locked(lab: Lab, poetry: str, project: Path, index: str, wanted: str) -> tuple[str, str]:
    """The lock file that poetry makes, empty without; and what it shows."""
    project.mkdir()
    told = POETRY.format(f"{lab.url}/{index}/").replace('"aged"', json.dumps(wanted))
    (project / "pyproject.toml").write_text(told)
    env = {"HOME": str(project), "PATH": "/usr/bin:/bin"}
    command = [poetry, "lock", "--no-interaction"]
    done = subprocess.run(command, env=env, cwd=project, capture_output=True, text=True, timeout=180, check=False)
    lock = project / "poetry.lock"
    assert (done.returncode == 0) == lock.exists(), done.stdout + done.stderr
    return lock.read_text() if lock.exists() else "", " ".join((done.stdout + done.stderr).split())


def test_poetry_locks_the_newest_that_is_let_in(lab: Lab, poetry: str, tmp_path: Path) -> None:
    tries = [("min_age", "/+simple", "demo"), ("before", "/+canonical/simple", "demo==2.0")]
    tries += [("changed", "-first/+simple", "replaced==2.0")]
    tries += [("min_age", "/+simple", f"demo @ {lab.url}/root/min-age/{place(NEW)}")]
    tries += [("malicious", "/+simple", f"malware @ {lab.url}/root/malicious/{place(MALWARE.new[0])}")]

    def one(number: int) -> tuple[str, str]:
        rule, view, wanted = tries[number]
        return locked(lab, poetry, tmp_path / str(number), f"{INDEXES[rule]}{view}", wanted)

    with lab.ruled("malicious"), ThreadPoolExecutor(2) as pool:
        newest, *others = pool.map(one, range(len(tries)))
    assert 'version = "1.0"' in newest[0] and "2.0-py3" not in newest[0]
    assert not any(lock for lock, _ in others), others
    for (rule, _, wanted), (_, told) in zip(tries[1:], others, strict=True):
        expected = f"403 Client Error: {shown(rule)}" if "@" in wanted else "doesn't match any versions"
        assert expected in told


def test_a_lock_file_names_a_file_that_is_held_back(lab: Lab, tmp_path: Path) -> None:
    """``uv sync`` asks for the addresses in the lock file: its message has the date."""
    index = f"{lab.url}/root/open/+simple/"
    project = '[project]\nname = "c"\nversion = "1"\nrequires-python = ">=3.9"\ndependencies = ["demo==2.0"]\n'
    (tmp_path / "pyproject.toml").write_text(f'{project}[[tool.uv.index]]\nurl = "{index}"\ndefault = true\n')
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "UV_HTTP_RETRIES": "0", "UV_PYTHON": sys.executable}

    def uv(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "uv"), *words, "--no-cache"]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)

    assert uv("lock").returncode == 0
    for name in ("pyproject.toml", "uv.lock"):
        path = tmp_path / name
        path.write_text(path.read_text().replace("/root/open/", "/root/min-age/"))
    done = uv("sync", "--frozen")
    assert done.returncode != 0
    assert shown("min_age") in " ".join(done.stderr.split())


def test_a_real_browser_is_not_offered_a_release_and_told_why(lab: Lab, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this host")

    def dom(path: str) -> str:
        words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/{path.count('/')}"]
        command = [chromium, *words, "--dump-dom", f"{lab.url}/{path}"]
        done = subprocess.run(command, env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=False)
        return done.stdout

    paths = ("root/min-age/+simple/demo/", "root/min-age-first/demo", f"root/min-age/{place(NEW)}")
    with ThreadPoolExecutor(2) as pool:
        page, web, file = pool.map(dom, paths)
    line = f"{NEW.filename} is held back until {ago(days=-7, hours=1)[:11]}"
    assert place(OLD) in page and "demo/1.0" in web
    assert place(NEW) not in page + web and "demo/2.0" not in web
    assert line in page and line in file
    assert f"<strong>{NEW.filename}</strong>" in web and f'until <time datetime="{line[-11:]}' in web


# What pages say


def test_a_page_says_what_is_held_back(lab: Lab) -> None:
    page = lab.page("root/min-age")
    assert page["versions"] == ["1.0"]
    assert {one["filename"]: one["rule"] for one in page["_held"]} == {made.filename: "min_age" for made in HELD}
    until = datetime.fromisoformat(page["_held"][0]["until"])
    assert timedelta(days=6, hours=22) < until - datetime.now(UTC) < timedelta(days=7)
    assert lab.page("root/min-age-dev")["_held"] == page["_held"]
    html = lab.get("/root/min-age/+simple/demo/", HTML).body.decode()
    assert f"<!-- {NEW.filename} is held back until {page['_held'][0]['until']} by min_age of root/min-age: " in html
    assert "_held" not in lab.page("root/open")
    assert {one["until"] for one in lab.page("root/deny")["_held"]} == {None}


def test_a_page_of_which_everything_is_held_back_is_empty(lab: Lab) -> None:
    (made,) = FILES_OF_FRESH
    publish(lab.upstream, "fresh", (made, ago(minutes=1)))
    for index in ("root/min-age", "root/min-age-dev", "root/min-age-first"):
        page = lab.page(index, "fresh")
        assert (page["files"], page["versions"], len(page["_held"])) == ([], [], 1)
    for install in INSTALLERS.values():
        assert not install(f"{lab.url}/root/min-age/+simple/", "fresh").succeeded


FILES_OF_FRESH = (make_wheel("fresh", "1.0"),)


# Time, and changes of rules


def test_a_file_comes_in_when_its_time_has_come(lab: Lab, poetry: str, tmp_path: Path) -> None:
    made, older = make_wheel("timed", "2.0"), make_wheel("timed", "1.0")
    indexes = ("root/min-age", "root/min-age-dev", "root/min-age-first")
    for seconds in (8, 30, 90):  # until its time comes; again where the machine was slower than that
        comes = time.monotonic() + seconds
        publish(lab.upstream, "timed", (older, ago(days=9)), (made, ago(days=7, seconds=-seconds)))
        refreshed(lab, "root/min-age", "timed")
        before = [lab.names(index, "timed") for index in indexes]
        refused = lab.file("root/min-age", made).status
        installed = INSTALLERS["uv"](f"{lab.url}/root/min-age/+simple/", "timed").versions
        if time.monotonic() < comes - 1:
            break
    assert before == [{older.filename}] * len(indexes)
    assert (refused, installed) == (403, {"timed-1.0"})
    asked = lab.upstream.pages("timed")
    deadline = time.monotonic() + 60
    for index in indexes:
        while made.filename not in lab.names(index, "timed"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert lab.file("root/min-age", made).body == made.content
    assert lab.upstream.pages("timed") == asked  # the page is made anew of the one that is kept
    with ThreadPoolExecutor(2) as pool:
        lock = pool.submit(locked, lab, poetry, tmp_path / "timed", "root/min-age/+simple", "timed")
        for install in INSTALLERS.values():
            assert install(f"{lab.url}/root/min-age-first/+simple/", "timed").versions == {"timed-2.0"}
        assert 'version = "2.0"' in lock.result()[0]
    browser = lab.get("/root/min-age-dev/+simple/timed/", BROWSER).body.decode()
    assert place(made) in browser and "held back" not in browser


def test_a_rule_holds_from_the_very_next_request(lab: Lab) -> None:
    made = make_wheel("ruled", "1.0")
    publish(lab.upstream, "ruled", (made, ago(days=9)))
    for config, allowed in (
        ({"deny": ["ruled"]}, False),
        ({"deny": []}, True),
        ({"min_age": "30d"}, False),
        ({"min_age": "30d", "min_age_exempt": ["rule*"]}, True),
        ({"min_age": "0", "min_age_exempt": [], "before": "2020-01-01"}, False),
        ({"before": "", "allow": ["other"]}, False),
        ({"allow": []}, True),
    ):
        lab.patch("root/open", **config)
        for _ in range(2):
            got = lab.file("root/open", made)
            assert got.status == (200 if allowed else 403), config
            for index in ("root/open", "root/open-dev", "root/open-first"):
                assert lab.names(index, "ruled") == ({made.filename} if allowed else set()), config


def test_a_list_of_malicious_releases_holds_for_all_mirrors_at_once(lab: Lab) -> None:
    made, safe = make_wheel("evil", "2.0"), make_wheel("evil", "1.0")
    publish(lab.upstream, "evil", (safe, ago(days=9)), (made, ago(days=9)))
    assert lab.names("root/open", "evil") == {safe.filename, made.filename}
    assert lab.file("root/open", made).status == 200
    file = lab.server.private / "malicious.json"
    try:
        file.write_text(json.dumps({"names": {"evil": {"2": "MAL-2025-1"}}}))
        assert request(lab.server.port, "GET", "/+deployer")[0] == 200  # as the command line does
        for index in ("root/open", "root/open-dev", "root/open-first", "root/deny"):
            assert lab.names(index, "evil") <= {safe.filename}
        got = lab.file("root/open", made)
        assert (got.status, got.headers["x-deployer-held"]) == (403, "malicious")
        assert b"MAL-2025-1" in got.body
        file.write_text("damaged")  # the list before holds
        request(lab.server.port, "GET", "/+deployer")
        assert lab.file("root/open", made).status == 403
    finally:
        file.unlink()
    deadline = time.monotonic() + 30
    while lab.file("root/open", made).status != 200:  # the server sees it by itself
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_file_that_its_upstream_has_replaced_is_held_back(lab: Lab) -> None:
    first = make_wheel("swapped", "1.0")
    second = make_wheel("swapped", "1.0", files={"swapped.py": "version = 'other'\n"})
    publish(lab.upstream, "swapped", (first, ago(days=99)))
    assert lab.file("root/min-age", first).status == 403 or lab.names("root/min-age", "swapped")
    assert lab.names("root/min-age", "swapped") == {first.filename}
    assert lab.file("root/min-age", first).body == first.content
    publish(lab.upstream, "swapped", (second, ago(days=99)))
    lab.get("/root/min-age/+simple/swapped/", JSON)
    refreshed(lab, "root/min-age", "swapped")
    page = lab.page("root/min-age", "swapped")
    assert page["files"] == []
    assert [one["rule"] for one in page["_held"]] == ["changed"]
    got = lab.file("root/min-age", second)
    assert (got.status, got.headers["x-deployer-held"]) == (403, "changed")
    assert lab.file("root/min-age", first).body == first.content  # what locks name
    publish(lab.upstream, "swapped")
    refreshed(lab, "root/min-age", "swapped")
    publish(lab.upstream, "swapped", (second, ago(days=99)))  # removed, and released again
    refreshed(lab, "root/min-age", "swapped")
    assert lab.page("root/min-age", "swapped")["files"] == []
    publish(lab.upstream, "swapped", (first, ago(days=99)))
    refreshed(lab, "root/min-age", "swapped")
    assert lab.names("root/min-age", "swapped") == {first.filename}


def test_nginx_sends_what_was_let_in(lab: Lab) -> None:
    wanted = {(index, suffix) for index in ("root/open", "root/deny") for suffix in ("", ".metadata")}
    log = lab.server.private / "log/access.log"
    before = len(log.read_text())
    deadline = time.monotonic() + 60
    while True:  # at first by devpi; and nginx's workers write their lines once a second, each its own
        for index, suffix in wanted:
            lab.file(index, OLD, suffix)
        time.sleep(1)
        lines = [json.loads(line) for line in log.read_text()[before:].splitlines()]
        found = {
            (line["index"], line["path"].rpartition("whl")[2]): line["from"]
            for line in lines
            if OLD.sha256[3:16] in line["path"]
        }
        if wanted <= found.keys() and all(found[one] == "file" for one in wanted):
            return
        assert time.monotonic() < deadline, found


def test_reports_say_what_is_held_back_cached_and_replaced(lab: Lab) -> None:
    deployment: Any = SimpleNamespace(url=lab.url, name="devpi")

    def listed(index: str, wanted: Report, name: str = "") -> dict[str, tuple[str, bool]]:
        return {one["filename"]: (one["rule"], one["cached"]) for one in report(deployment, index, wanted, name=name)}

    held = {made.filename: ("min_age", made is not COLD) for made in HELD}
    assert listed("root/min-age-dev", Report.HELD, "demo") == held
    assert listed("root/min-age-dev", Report.POLICY) == {name: found for name, found in held.items() if found[1]}
    let_in = {made.filename: ("", True) for made in (OLD, OLD_SDIST)}
    assert listed("root/min-age-first", Report.FILES, "demo") == held | let_in
    assert listed("root/open", Report.HELD) == {}
    first, second = (make_wheel("redone", "1.0", files={"redone.py": text}) for text in ("one", "two"))
    for made in (first, second):
        publish(lab.upstream, "redone", (made, ago(days=99)))
        lab.page("root/deny", "redone")
        lab.page("root/open", "redone")
        if made is first:
            assert lab.file("root/deny", made).body == made.content
        for index in ("root/deny", "root/open"):
            refreshed(lab, index, "redone")
    assert listed("root/deny", Report.CHANGES) == {first.filename: ("changed", True)}
    assert listed("root/open", Report.CHANGES, "redone") == {first.filename: ("", False)}  # seen, and let in
    assert lab.file("root/open", second).body == second.content
    for path in ("?index=root/none", "?index=root/open&list=files", "?index=root/open&list=what", ""):
        assert lab.get(f"/+deployer/rules{path}").status in (400, 404)


def test_refusals_are_counted_by_rule(lab: Lab) -> None:
    assert lab.file("root/allow", NEW).status == 403
    deadline = time.monotonic() + 30
    while True:
        counted = json.loads((lab.server.private / "statistics.json").read_text())["indexes"]
        refused = {index: set(counts["refused"]) for index, counts in counted.items()}
        if "allow" in refused.get("root/allow", ()):
            return
        assert time.monotonic() < deadline, refused
        time.sleep(0.3)


def refreshed(lab: Lab, index: str, project: str) -> None:
    """Have the upstream asked for a page."""
    status, _ = request(lab.server.port, "POST", f"/{index}/+simple/{project}/refresh", headers=lab.auth)
    assert status in (200, 302)


def test_wrong_rules_are_refused_by_the_server(lab: Lab) -> None:
    for config in ({"min_age": "soon"}, {"deny": ["a b"]}, {"before": "never"}, {"unknown_age": "perhaps"}):
        body = {"type": "mirror", "mirror_url": lab.upstream.simple_url, **config}
        assert request(lab.server.port, "PATCH", "/root/open", body=body, headers=lab.auth)[0] == 400, config


def test_no_way_leads_around_a_rule_of_devpi_server_7(seven: Lab) -> None:
    for way in (direct, other_index, old_cache, ranges, companions, canonical, web_page, same_name):
        way(seven, "root/min-age", "min_age")
    for source in ("root/min-age", "root/min-age-dev"):
        told = {"name": "demo", "version": "2.0", "targetindex": "root/min-age-dev"}
        assert request(seven.server.port, "PUSH", f"/{source}", body=told, headers=seven.auth)[0] in (400, 403, 404)
    for made in HELD:
        assert seven.upstream.count(f"/packages/{made.filename}") == (0 if made is COLD else 1)
    # Another base does not take a name over: an index of its own, and then the mirror again.
    own = make_wheel("demo", "9.0")
    seven.put("root/own", type="local", bases=[], volatile=True)
    seven.put("root/both", type="ordered", bases=["root/own", "root/min-age"], volatile=True)
    assert seven.names("root/both") == {OLD.filename, OLD_SDIST.filename}
    assert upload(seven.server, seven.auth, "root/own", own) == 200
    assert seven.get("/root/both/+simple/demo/", JSON).headers["x-deployer-held"] == "changed"
    assert b"9.0" not in seven.get("/root/both/demo", {"Accept": "application/json"}).body
    seven.patch("root/both", changed="allow")
    assert seven.names("root/both") == {own.filename}
    seven.patch("root/both", changed="refuse")
    assert request(seven.server.port, "DELETE", "/root/own/demo", headers=seven.auth)[0] == 200
    assert seven.get("/root/both/+simple/demo/", HTML).headers["x-deployer-held"] == "changed"


def test_rules_hold_offline_and_after_a_restart(lab: Lab) -> None:
    index = "root/min-age"
    assert switch(lab.server, offline=True) == 200
    try:
        for above in (index, f"{index}-dev", f"{index}-first"):
            assert lab.names(above) == {OLD.filename, OLD_SDIST.filename}
        direct(lab, index, "min_age")
        companions(lab, index, "min_age")
        web_page(lab, index, "min_age")
        canonical_page = json.loads(lab.get(f"/{index}/+canonical/simple/demo/", JSON).body)
        assert {file["filename"] for file in canonical_page["files"]} == {OLD.filename, OLD_SDIST.filename}
    finally:
        switch(lab.server, offline=False)
    lab.server.end()
    lab.server.start("--request-timeout", "10", "--web", "manage")
    lab.auth.update(lab.server.auth)
    for way in (direct, old_cache, companions, other_index):
        way(lab, index, "min_age")
