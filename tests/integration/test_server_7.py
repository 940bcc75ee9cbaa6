"""The same declarations on a real devpi-server 7, which spells them otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.devpi.api import DevpiApi
from deployer.devpi.converge import converge, steps
from deployer.devpi.declared import wanted
from deployer.devpi.export import exported
from deployer.errors import ConflictError, ProfileError
from deployer.profile.models import Index, User
from deployer.secrets import Secret
from tests.integration.cli import Cli
from tests.plain_devpi import PlainDevpi, free_port, init
from tests.replaced import documented, replaced
from tests.upstream import Upstream, make_wheel
from tests.views import documented as documented_views
from tests.views import views

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

USERS = {"dev": User(email="dev@example.com", title="Developers")}


def indexes(upstream: Upstream) -> dict[str, Index]:
    return {
        "root/pypi": Index(
            type="mirror",
            url=upstream.simple_url,
            cache_expiry=60,
            project_list=False,
            external_urls=False,
            web_url="https://packages.example.com/{name}/",
            core_metadata=True,
            title="All that is public",
        ),
        "root/dev": Index(
            type="stage",
            bases=("root/pypi",),
            volatile=False,
            acl_upload=("root", ":anonymous:"),
            mirror_whitelist=(),
            mirror_whitelist_inheritance="intersection",
        ),
        "dev/work": Index(
            type="stage", bases=("root/dev",), mirror_whitelist=("*",), mirror_whitelist_inheritance="union"
        ),
    }


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("demo", "1.0")]) as running:
        yield running


@pytest.fixture(scope="module")
def seven(python7: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainDevpi]:
    serverdir = tmp_path_factory.mktemp("data") / "server"
    init(serverdir, python=python7)
    server = PlainDevpi(serverdir, python=python7)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def applied(api: DevpiApi, upstream: Upstream, server: PlainDevpi, **changed: Index) -> list[str]:
    goal = wanted(USERS, indexes(upstream) | changed, default_mirror_url="")
    done = converge(
        api,
        steps(api, goal),
        password=lambda: Secret(server.password),
        new_password=lambda user: Secret(f"a fresh secret of {user}"),
        forget=lambda user: None,
    )
    return [change.text for change in done]


def test_what_is_declared_converges_and_stays(seven: PlainDevpi, upstream: Upstream) -> None:
    with DevpiApi(seven.url) as api:
        assert api.codec.major == 7
        assert len(applied(api, upstream, seven)) == 4
        before = len(seven.requests)
        assert applied(api, upstream, seven) == []
        assert len(seven.requests) == before + 1
        assert api.simple_status("root/pypi").type == "remote"
        told = exported(api.topology())["indexes"]
        assert told["root/pypi"]["url"] == upstream.simple_url
        assert "core_metadata" not in told["root/pypi"]
        assert told["dev/work"]["mirror_whitelist"] == ["*"]


def test_one_field_is_one_change(seven: PlainDevpi, upstream: Upstream) -> None:
    with DevpiApi(seven.url) as api:
        applied(api, upstream, seven)
        changed = indexes(upstream)["root/pypi"].model_copy(update={"cache_expiry": 61})
        before = len(seven.requests)
        told = applied(api, upstream, seven, **{"root/pypi": changed})
        assert told == ["modify index root/pypi: mirror_cache_expiry 60 -> 61"]
        assert [one.split()[0] for one in seven.requests[before:]] == ["GET", "PATCH"]
        node = api.topology().indexes["root/pypi"]
        assert (node.fields["mirror_cache_expiry"], node.fields["title"]) == (61, "All that is public")


def test_what_it_can_not_hold_is_told(seven: PlainDevpi, upstream: Upstream) -> None:
    with DevpiApi(seven.url) as api:
        applied(api, upstream, seven)
        with pytest.raises(ProfileError, match="devpi-server 7 has no mirror_whitelist"):
            applied(api, upstream, seven, **{"dev/work": Index(type="stage", mirror_whitelist=("demo",))})
        with pytest.raises(ConflictError, match="root/pypi is of type mirror on the server"):
            applied(api, upstream, seven, **{"root/pypi": Index(type="stage")})


def files_of(directory: Path) -> dict[str, tuple[int, int]]:
    """Everything below, with mode and time; what only a running server writes is left out."""
    found = {str(path.relative_to(directory)): path.stat() for path in (directory, *directory.rglob("*"))}
    return {name: (status.st_mode, status.st_mtime_ns) for name, status in found.items()}


def test_each_version_refuses_the_data_of_the_other_and_touches_nothing(python7: str, tmp_path: Path) -> None:
    for python, here, other in ((python7, "7", "6"), (sys.executable, "6", "7")):
        serverdir = tmp_path / f"of-{other}"
        init(serverdir, python=sys.executable if other == "6" else python7)
        serverdir.chmod(0o755)
        before = files_of(serverdir)
        words = ["serve", "--serverdir", str(serverdir), "--port", str(free_port())]
        done = subprocess.run(
            [python, "-m", "deployer.server", *words], capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 11, done.stderr
        assert f"holds data of devpi-server {other}, and this server is devpi-server {here}" in done.stderr
        assert f'server.version: "{other}"' in done.stderr
        assert files_of(serverdir) == before


def test_a_deployment_goes_on_when_it_is_told_to_become_the_other_version(python7: str, tmp_path: Path) -> None:
    cli = Cli(home=tmp_path, engine="process", upstream="http://127.0.0.1:9/simple/")
    try:
        assert cli.up("--no-pip").code == 0
        uuid = cli.run("status", "--json").data["server_uuid"]
        wrong = cli.up("--no-pip", "--set", "server.version=7", "--json")
        assert (wrong.code, "devpi-deployer[server7]" in wrong.envelope["error"]["hint"]) == (4, True)
        cli.python = python7
        refused = cli.up("--no-pip", "--set", "server.version=7", "--json")
        assert refused.code == 11
        assert "holds data of devpi-server 6" in refused.envelope["error"]["message"]
        cli.python = sys.executable
        status = cli.run("status", "--json").data
        assert (status["state"], status["server_uuid"], status["ready"]) == ("running", uuid, True)
    finally:
        cli.clean()


def test_daily_work_by_its_address(seven: PlainDevpi, upstream: Upstream, tmp_path: Path) -> None:
    with DevpiApi(seven.url) as api:
        applied(api, upstream, seven)
    cli = Cli(home=tmp_path, engine="process")
    wheel = make_wheel("acme-core", "1.0")
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    at = ("--url", seven.url)
    secret = seven.password + "\n"
    done = cli.run("index", "create", "root/new", "bases=root/pypi", "volatile=true", *at, stdin=secret)
    assert done.code == 0, done.err
    done = cli.run("package", "upload", wheel.filename, "--index", "root/new", *at, stdin=secret)
    assert done.code == 0, done.err
    done = cli.run("package", "upload", wheel.filename, "--index", "root/new", "--json", *at, stdin=secret)
    assert (done.data["uploaded"], len(done.data["skipped"])) == ([], 1)
    assert cli.run("package", "list", "--index", "root/new", *at).out == "acme-core\n"
    assert cli.run("package", "download", "acme-core", "--index", "root/new", "-d", "down", *at).code == 0
    assert (tmp_path / "down" / wheel.filename).read_bytes() == wheel.content
    done = cli.run("package", "push", "acme-core==1.0", "root/dev", "--index", "root/new", *at, stdin=secret)
    assert done.code == 0, done.err
    done = cli.run("package", "remove", "acme-core==1.0", "--index", "root/new", "--yes", *at, stdin=secret)
    assert done.code == 0, done.err
    assert cli.run("index", "delete", "root/new", "--yes", *at, stdin=secret).code == 0


def test_a_backup_of_its_data_restores_whole(
    seven: PlainDevpi, upstream: Upstream, python7: str, tmp_path: Path
) -> None:
    with DevpiApi(seven.url) as api:
        applied(api, upstream, seven)
    cli = Cli(home=tmp_path, engine="process")
    wheel, at, secret = make_wheel("kept", "1.0"), ("--url", seven.url), seven.password + "\n"
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    done = cli.run("package", "upload", wheel.filename, "--index", "root/dev", *at, stdin=secret)
    assert done.code == 0, done.err
    assert cli.run("package", "download", "demo", "--index", "root/pypi", "-d", "down", *at).code == 0  # it is last

    def call(*words: str) -> dict[str, object]:
        command = [python7, "-m", "deployer.server", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    place, data = ("--directory", str(tmp_path / "backups")), ("--serverdir", str(seven.serverdir))
    whole = call("backup", "create", *place, *data)
    assert (whole["left_out"], whole["lost"], call("examine", *data)["findings"]) == (0, [], [])
    left = call("backup", "create", "--without-cache", *place, *data)
    assert left["left_out"] == int(str(whole["files"])) - int(str(left["files"])) > 0
    restored = tmp_path / "restored"
    call("backup", "restore", *place, "--serverdir", str(restored))
    server = PlainDevpi(restored, python=python7)
    try:
        server.start()
        (tmp_path / "again").mkdir()
        words = ("package", "download", "kept", "--index", "root/dev", "-d", "again", "--url", server.url)
        assert cli.run(*words).code == 0
    finally:
        server.stop()
    assert (tmp_path / "again" / wheel.filename).read_bytes() == wheel.content


def test_what_is_replaced_of_its_code_is_what_is_documented(python7: str) -> None:
    assert replaced(python7) == documented("7")


def test_every_view_has_a_row(python7: str) -> None:
    assert views(python7) == documented_views()


LOOK = """
import inspect, json
from types import SimpleNamespace
from devpi_server.model.schema import Schema
from devpi_server.keyfs_schema import PatternedKeyDescriptor
from deployer.server.devpi import installed, relied_on, version7
from deployer.server.pages.changelog import EVERYTHING, Changelog

def touched(kind, **params):
    changed = SimpleNamespace(key=SimpleNamespace(key_name=kind, params=params), value={}, back_serial=-1)
    connection = SimpleNamespace(iter_changes_at=lambda serial: [changed])
    found = version7.touched(None, connection, 1, offline=False)
    return ["everything" if one is None else one for one in found]

kinds = [name for base in Schema.__mro__ for name in vars(base) if name.isupper()]
renamed = [one.path for one in relied_on.table(web=True) for word in one.words
           if not relied_on.Reliance(one.module, one.path, (word + "_renamed",)).missing]
print(json.dumps({
    "missing": list(relied_on.missing(relied_on.table(web=True))),
    "renamed": renamed,
    "kinds": sorted(kinds),
    "known": sorted({"USER", "INDEX"} | version7._OF_ONE_PROJECT | version7.FILES | version7._OF_NO_PAGE),
    "touched": {kind: touched(kind, project="Some.Name") for kind in ("USER", "SOMETHING", "SIMPLEDATA", "FILE")},
}))
"""


def test_what_is_relied_on_of_its_code_is_there_and_its_keys_are_known(python7: str) -> None:
    done = subprocess.run([python7, "-c", LOOK], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["missing"], told["renamed"]) == ([], [])
    assert told["kinds"] == told["known"]  # each commit of another kind would cost every page
    assert told["touched"] == {
        "USER": ["everything"],
        "SOMETHING": ["everything"],
        "SIMPLEDATA": ["some-name"],
        "FILE": [],
    }
