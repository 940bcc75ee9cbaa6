"""Users, indexes, packages and tokens by our own commands, against one real deployment on `process`."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cli import Cli
from tests.upstream import Upstream, make_sdist, make_wheel

pytestmark = pytest.mark.server

PROFILE: dict[str, Any] = {
    "extends": "default",
    "users": {"dev": {"email": "dev@example.com"}, "ci": {}},
    "groups": {"makers": ["dev", "ci"]},
    "indexes": {
        "dev/work": {"type": "stage", "bases": ["root/pypi"], "volatile": True, "acl_upload": ["@makers"]},
        "dev/release": {"type": "stage", "acl_upload": ["dev"], "volatile": False},
    },
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("demo", "1.0"), make_wheel("demo", "1.1")]) as running:
        yield running


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cli]:
    home = tmp_path_factory.mktemp("home")
    deployment = Cli(home=home, engine="process")
    indexes = {**PROFILE["indexes"], "root/pypi": {"type": "mirror", "url": upstream.simple_url}}
    where = {"engine": "process", "data": str(deployment.data), "network": {"port": deployment.port}}
    (home / "team.yaml").write_text(yaml.safe_dump({**PROFILE, **where, "indexes": indexes}))
    deployment.extra["DEPLOYER_PROFILE"] = str(home / "team.yaml")
    done = deployment.run("up", "--no-pip")
    assert done.code == 0, done.err
    try:
        yield deployment
    finally:
        deployment.clean()


@pytest.fixture(scope="module")
def dist(cli: Cli) -> Path:
    folder = cli.home / "dist"
    folder.mkdir()
    for made in (make_wheel("acme-core", "1.0"), make_sdist("acme-core", "1.0"), make_wheel("acme-core", "1.1")):
        (folder / made.filename).write_bytes(made.content)
    return folder


def http_status(cli: Cli, method: str, path: str, *, user: str = "", password: str = "", body: object = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", cli.port, timeout=30)
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"Accept": "application/json", **({"Authorization": f"Basic {pair}"} if user else {})}
    connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_an_export_is_a_profile_of_what_runs(cli: Cli) -> None:
    exported = cli.run("index", "export")
    assert exported.code == 0, exported.err
    path = cli.home / "exported.yaml"
    path.write_text(exported.out.replace("extends: default", f"extends: {cli.home / 'team.yaml'}"))
    done = cli.run("index", "apply", "--profile", str(path), "--json")
    assert (done.code, done.data["changes"], done.data["kept"]) == (0, [], [])


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("index", "create", "dev/x", "bases=dev/wrok"), 7, "did you mean 'dev/work'?"),
        (("index", "create", "eve/x"), 7, "deployer user create eve"),
        (("index", "create", "dev/work"), 5, "deployer index modify dev/work"),
        (("index", "create", "../x"), 3, "can't be an index"),
        (("index", "create", "dev/x", "bsaes=dev/work"), 2, "did you mean bases=...?"),
        (("index", "create", "dev/x", "volatile=perhaps"), 2, "volatile"),
        (("index", "create", "dev/x", "acl_upload=@makers"), 2, "groups are a profile's"),
        (("index", "create", "dev/x", "--type", "ordered"), 2, "deployer index apply"),
        (("index", "modify", "root/pypi", "url=https://u:canary-77@packages.example.com/"), 11, "credentials"),
        (("index", "modify", "dev/work", "bases=dev/work"), 7, "would build on dev/work itself"),
        (("index", "modify", "dev/wrok", "title=x"), 7, "did you mean 'dev/work'?"),
        (("mirror", "delete", "dev/work", "--yes"), 7, "dev/work is a stage index, not a mirror"),
        (("index", "delete", "root/dev", "--yes"), 11, "the index of this deployment's clients"),
        (("user", "create", "dev"), 5, "deployer user modify dev"),
        (("user", "create", "../../etc"), 3, "can't be a user's name"),
        (("user", "delete", "root", "--yes"), 11, "root"),
        (("user", "delete", "dev", "--yes"), 5, "dev owns dev/release"),
        (("user", "modify", "nobody", "--email", "x"), 7, "there is no user nobody"),
        (("package", "show", "absent", "--index", "dev/release"), 7, "there is no project absent"),
        (("package", "push", "absent==1", "dev/release", "--index", "dev/work"), 7, "refused to push"),
        (("package", "push", "absent", "dev/release"), 2, "no version of absent"),
        (("package", "push", "absent==1", "root/pypi"), 2, "accepts no uploads"),
        (("package", "remove", "absent", "--index", "dev/release", "--yes"), 11, "volatile=false"),
        (("token", "create", "dev", "--expires", "soon"), 2, "invalid token lifetime"),
        (("token", "revoke", "dev", "nothing"), 7, "deployer token list dev"),
        (("package", "upload", "absent.whl", "--index", "dev/work"), 2, "absent.whl can't be read"),
        (("user", "list", "--as", "stranger", "--name", "no-such-deployment"), 5, "deployer up"),
        (("index", "create", "dev/x", "--as", "stranger"), 5, "deployer secret set stranger"),
        (("index", "create", "dev/x", "--as", "dev"), 7, "--as"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_can_not_be_is_told_with_its_cure(cli: Cli, words: tuple[str, ...], code: int, told: str) -> None:
    done = cli.run(*words)
    said = re.sub(r" --name \S+", "", done.err)  # which a cure has where the deployment is not the usual one
    assert (done.code, told in said) == (code, True), done.err
    assert "canary-77" not in done.err


def test_two_mirrors_are_not_merged_by_any_command(cli: Cli, upstream: Upstream) -> None:
    assert cli.run("mirror", "create", "root/other", upstream.simple_url, "cache_expiry=60").code == 0
    for words in (
        ("create", "dev/both", "bases=root/other,root/pypi"),
        ("create", "dev/both", "bases=root/other,dev/work"),
        ("modify", "dev/work", "bases=root/pypi,root/other"),
    ):
        done = cli.run("index", *words)
        assert (done.code, "would merge the mirrors" in done.err) == (11, True), done.err
    rows = cli.run("mirror", "list", "--json").data["indexes"]
    assert {row["name"]: row.get("cache_expiry") for row in rows} == {"root/other": 60, "root/pypi": None}
    assert cli.run("mirror", "modify", "root/other", "cache_expiry=60").err.endswith("root/other: unchanged\n")
    assert cli.run("mirror", "delete", "root/other", "--yes").code == 0


def test_a_password_is_made_kept_and_changed(cli: Cli) -> None:
    assert cli.run("user", "create", "eve", "--password-stdin", stdin="first secret\n").code == 0
    assert cli.run("secret", "show", "eve").out == "first secret\n"
    assert cli.run("user", "passwd", "eve").code == 0
    fresh = cli.run("secret", "show", "eve").out.strip()
    assert fresh != "first secret"
    (kept,) = (cli.home / "state").rglob("eve.password")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert http_status(cli, "POST", "/+login", body={"user": "eve", "password": fresh}) == 200
    assert cli.run("user", "passwd", "eve", "--password-stdin", "--as", "eve", stdin="third secret\n").code == 0
    assert http_status(cli, "POST", "/+login", body={"user": "eve", "password": fresh}) == 401
    assert cli.run("user", "modify", "eve", "--email", "eve@example.com", "--json").data["changed"] == ["email"]
    assert cli.run("user", "modify", "eve", "--email", "eve@example.com", "--json").data["changed"] == []
    rows = {row["name"]: row for row in cli.run("user", "list", "--json").data["users"]}
    assert (rows["eve"]["email"], rows["eve"]["password_known"]) == ("eve@example.com", True)
    assert cli.run("user", "delete", "eve", "--yes").code == 0
    assert not kept.exists()


def test_files_go_up_down_across_and_away(cli: Cli, dist: Path, tmp_path: Path) -> None:
    done = cli.run("package", "upload", str(dist), "--index", "dev/work", "--as", "ci", "--json").data
    assert (len(done["uploaded"]), done["skipped"]) == (3, [])
    done = cli.run("package", "upload", str(dist), "--index", "dev/work", "--as", "ci", "--json").data
    assert (done["uploaded"], len(done["skipped"])) == ([], 3)
    assert cli.run("package", "list", "--index", "dev/work").out == "acme-core\n"
    assert cli.run("package", "show", "Acme.Core", "--index", "dev/work", "--json").data["versions"] == ["1.1", "1.0"]
    down = tmp_path / "down"
    done = cli.run("package", "download", "acme-core==1.0", "--index", "dev/work", "--dest", str(down), "--json").data
    assert len(done["downloaded"]) == 2
    assert {path.name: path.read_bytes() for path in down.iterdir()} == {
        path.name: path.read_bytes() for path in dist.glob("*-1.0*")
    }
    done = cli.run("package", "download", "acme-core==1.0", "--index", "dev/work", "--dest", str(down), "--json").data
    assert (done["downloaded"], len(done["skipped"])) == ([], 2)
    (down / "acme_core-1.0.tar.gz").write_bytes(b"something else")
    assert cli.run("package", "download", "acme-core==1.0", "--index", "dev/work", "-d", str(down)).code == 5
    assert (down / "acme_core-1.0.tar.gz").read_bytes() == b"something else"
    assert not list(down.glob(".*"))
    done = cli.run("package", "push", "acme-core==1.0", "dev/release", "--index", "dev/work", "--as", "dev", "--json")
    assert len(done.data["files"]) == 2
    denied = cli.run("package", "push", "acme-core==1.1", "dev/release", "--index", "dev/work", "--as", "ci")
    assert (denied.code, "cannot upload" in denied.err) == (7, True)
    assert cli.run("package", "remove", "acme-core==1.1", "--index", "dev/work", "--yes", "--as", "dev").code == 0
    assert cli.run("package", "show", "acme-core", "--index", "dev/work", "--json").data["versions"] == ["1.0"]


def test_a_wrong_password_for_an_address_is_not_blamed_on_the_stored_one(cli: Cli) -> None:
    done = cli.run("user", "create", "bob", "--url", cli.url, stdin="wrong\n")
    assert (done.code, "rejected the password of root" in done.err, "secret set" in done.err) == (7, True, False)
    assert "bob" not in cli.run("user", "list", "--url", cli.url).out


def test_a_file_that_is_there_with_other_content_is_a_conflict(cli: Cli, dist: Path, tmp_path: Path) -> None:
    assert cli.run("package", "upload", str(dist), "--index", "dev/release", "--as", "dev").code == 0
    other = make_wheel("acme-core", "1.0", files={"acme_core.py": "changed = True\n"})
    fresh = make_wheel("acme-core", "3.0")
    for made in (other, fresh):
        (tmp_path / made.filename).write_bytes(made.content)
    done = cli.run("package", "upload", str(tmp_path), "--index", "dev/release", "--as", "dev")
    assert (done.code, "with other content" in done.err) == (5, True)
    # Nothing was sent: a set of files goes up whole or not at all, as far as that can be known before.
    assert "3.0" not in cli.run("package", "show", "acme-core", "--index", "dev/release").out


def test_a_project_of_a_mirror_is_shown_and_downloaded(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("package", "download", "demo", "--index", "dev/work", "--dest", str(tmp_path), "--json")
    assert [Path(name).name for name in done.data["downloaded"]] == ["demo-1.1-py3-none-any.whl"]
    assert cli.run("package", "list", "--index", "root/pypi").out == "demo\n"


def test_a_token_uploads_to_its_index_until_it_is_revoked(cli: Cli, dist: Path, tmp_path: Path) -> None:
    made = cli.run("token", "create", "dev", "--index", "dev/work", "--project", "acme-core", "--expires", "1h")
    token = made.out.strip()
    assert (made.code, "\n" in token, token in made.err) == (0, False, False)
    wheel = make_wheel("acme-core", "7.0")
    assert upload(cli, "dev/work", token, wheel.filename, wheel.content) == 200
    assert upload(cli, "dev/release", token, wheel.filename, wheel.content) == 403
    stranger = make_wheel("other", "7.0")
    assert upload(cli, "dev/work", token, stranger.filename, stranger.content, project="other") == 403
    push = {"name": "acme-core", "version": "7.0", "targetindex": "dev/release"}
    assert http_status(cli, "POST", "/dev/work", user="dev", password=token, body=push) in (401, 403)
    assert http_status(cli, "PATCH", "/dev", user="dev", password=token, body={"password": "taken over"}) == 403
    assert http_status(cli, "PATCH", "/dev", user="dev", password=token, body={"email": "x@example.com"}) == 403
    assert http_status(cli, "DELETE", "/dev/work/acme-core", user="dev", password=token) == 403
    assert http_status(cli, "POST", "/dev/+token-create", user="dev", password=token, body={}) == 403
    (row,) = cli.run("token", "list", "dev", "--json").data["tokens"]
    assert (row["indexes"], row["projects"], row["allowed"], row["expired"]) == (
        "dev/work",
        "acme-core",
        "upload",
        "false",
    )
    assert cli.run("token", "revoke", "dev", row["id"]).code == 0
    assert upload(cli, "dev/work", token, wheel.filename, wheel.content) == 403
    assert token not in cli.run("logs", "-n", "100000").out


def test_a_user_makes_tokens_for_himself_that_read(cli: Cli) -> None:
    made = cli.run("token", "create", "dev", "--as", "dev", "--read", "--index", "dev/work", "--json")
    assert made.code == 0, made.err
    assert (made.data["allowed"], made.data["indexes"]) == (["pkg_read"], ["dev/work", "root/pypi"])
    assert made.data["simple_url"].endswith("/dev/work/+simple/")
    token = made.data["token"]
    wheel = make_wheel("acme-core", "7.0")
    assert upload(cli, "dev/work", token, wheel.filename, wheel.content) == 403
    assert http_status(cli, "GET", "/dev/work/+simple/", user="dev", password=token) == 200
    for method, path, body in (("POST", "/dev/+token-create", {}), ("GET", "/dev/+tokens", None)):
        assert http_status(cli, method, path, user="dev", password=token, body=body) == 403
    both = cli.run("token", "create", "dev", "--as", "dev", "--read", "--upload", "--index", "dev/work", "--json")
    assert both.data["allowed"] == ["upload", "pkg_read"], both.err
    assert upload(cli, "dev/work", both.data["token"], wheel.filename, wheel.content) in (200, 409)
    assert cli.run("token", "create", "root", "--as", "dev", "--read").code == 7  # of nobody else
    assert cli.run("token", "list", "dev", "--as", "ci").code == 7
    assert cli.run("token", "create", "dev", "--as", "dev", "--expires", "2y").code == 7
    limited = cli.run("token", "create", "dev", "--read", "--project", "acme-core", "--index", "dev/work")
    assert (limited.code, "reads no protected index" in limited.err) == (2, True)
    assert len(cli.run("token", "list", "dev", "--as", "dev", "--json").data["tokens"]) == 2
    assert cli.run("token", "revoke", "dev", "all", "--as", "dev").code == 0


def test_a_token_that_may_read_can_not_push_out_of_its_index(cli: Cli) -> None:
    """devpi-tokens alone checks the index that a push comes from, not the one that it goes to."""
    root = cli.run("secret", "show", "root").out.strip()
    assert push_with(cli, root, {"allowed": ["upload", "pkg_read"], "indexes": ["dev/work"]}) == 401
    assert push_with(cli, root, {"allowed": ["upload", "pkg_read"], "projects": ["acme-core"]}) == 401
    assert push_with(cli, root, {"allowed": ["upload", "pkg_read"]}) == 200


def push_with(cli: Cli, root: str, restrictions: dict[str, object]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", cli.port, timeout=30)
    pair = base64.b64encode(f"root:{root}".encode()).decode()
    headers = {"Accept": "application/json", "Authorization": f"Basic {pair}"}
    connection.request("POST", "/dev/+token-create", body=json.dumps(restrictions), headers=headers)
    token = json.loads(connection.getresponse().read())["result"]["token"]
    push = {"name": "acme-core", "version": "7.0", "targetindex": "dev/release"}
    return http_status(cli, "POST", "/dev/work", user="dev", password=token, body=push)


def upload(cli: Cli, index: str, token: str, filename: str, content: bytes, *, project: str = "acme-core") -> int:
    boundary = os.urandom(16).hex()
    fields = {":action": "file_upload", "name": project, "version": "7.0", "filetype": "bdist_wheel"}
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{filename}"\r\n\r\n'
    body = b"".join(parts) + head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    pair = base64.b64encode(f"__token__:{token}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", cli.port, timeout=30)
    headers = {"Authorization": f"Basic {pair}", "Content-Type": f"multipart/form-data; boundary={boundary}"}
    connection.request("POST", f"/{index}/", body=body, headers=headers)
    return connection.getresponse().status


def test_the_log_of_changes_says_who_changed_what_and_what_was_refused(cli: Cli, dist: Path) -> None:
    begun = max((one["time"] for one in changes(cli, "--changes", "--refused")), default="")
    wheel = dist / make_wheel("acme-core", "1.1").filename
    for words in (
        ("user", "create", "eve"),
        ("index", "create", "eve/own", "volatile=true", "acl_upload=root"),
        ("index", "modify", "eve/own", "title=mine"),
        ("package", "upload", "--index", "eve/own", str(wheel)),
        ("package", "push", "acme-core==1.1", "dev/work", "--index", "eve/own", "--as", "dev"),
        ("package", "remove", "acme-core==1.1", "--index", "eve/own", "--yes"),
        ("token", "create", "eve", "--index", "eve/own"),
        ("index", "delete", "eve/own", "--yes"),
        ("user", "delete", "eve", "--yes"),
    ):
        done = cli.run(*words)
        assert done.code == 0, done.err
    made = [one for one in changes(cli, "--changes") if one["time"] > begun]
    fields = ["acl_toxresult_upload", "acl_upload", "mirror_whitelist", "type", "volatile"]
    assert [(one["user"], one["action"], one["target"], one["details"]) for one in made] == [
        ("root", "create user", "eve", []),
        ("root", "create index", "eve/own", fields),
        ("root", "modify index", "eve/own", ["title"]),
        ("root", "upload", "eve/own/acme-core/1.1", [wheel.name]),
        ("dev", "push", "eve/own/acme-core/1.1", ["dev/work"]),
        ("root", "delete version", "eve/own/acme-core/1.1", []),
        ("root", "create token", "eve", []),
        ("root", "delete index", "eve/own", []),
        ("root", "delete user", "eve", []),
    ]
    assert {one["client"] for one in made} == {"127.0.0.1"}

    secret = "a word that nobody may read"
    assert http_status(cli, "POST", "/+login", body={"user": "dev", "password": secret}) == 401
    assert http_status(cli, "PUT", "/mallory", body={"password": secret}) in (401, 403)
    assert http_status(cli, "PATCH", "/dev", user="dev", password=secret, body={"password": secret}) in (401, 403)
    refused = [one for one in changes(cli, "--refused") if one["time"] > begun]
    assert [(one["user"], one["action"], one["target"]) for one in refused[-3:]] == [
        ("dev", "log in", ""),
        ("", "create user", "mallory"),
        ("", "modify user", "dev"),
    ]
    shown = cli.run("logs", "--changes", "--refused", "-n", "3")
    assert [line.split("  ")[1] for line in shown.out.splitlines()] == ["dev", "-", "-"]
    kept = "".join(path.read_text() for path in (cli.data / ".deployer" / "log").glob("*.log"))
    assert secret not in kept
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (cli.data / ".deployer" / "log").glob("*.log"))


def changes(cli: Cli, *words: str) -> list[dict[str, Any]]:
    done = cli.run("logs", *words, "--json")
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = done.data["changes"]
    return found
