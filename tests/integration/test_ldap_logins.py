"""Accounts from an LDAP directory: devpi-ldap by the lock, on the process engine, against a real slapd."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engines import need
from tests.indexed_server import upload
from tests.integration.cli import Cli
from tests.ldap_directory import PASSWORDS, PATIENCE, READER, READER_PASSWORD, Directory
from tests.replaced import DOCS
from tests.server_process import request
from tests.upstream import make_wheel

pytestmark = pytest.mark.server

LDAP = {
    "user_search": {
        "base": "ou=people,dc=example,dc=com",
        "filter": "(&(objectClass=inetOrgPerson)(uid={username}))",
        "attribute_name": "dn",
        "userdn": READER,
    },
    "group_search": {
        "base": "ou=groups,dc=example,dc=com",
        "filter": "(&(objectClass=groupOfNames)(member={userdn}))",
        "attribute_name": "cn",
        "userdn": READER,
    },
}
KEYS = [f"devpi-ldap.{search}.password" for search in LDAP]
LOCK = "deployer plugins lock"
GIVEN = {"DIRECTORY_PASSWORD": READER_PASSWORD}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    made = Directory(tmp_path_factory.mktemp("slapd") / "directory")
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, directory: Directory) -> Iterator[Cli]:
    """A server with the plugin, which nobody has logged in to."""
    need("process")
    home = tmp_path_factory.mktemp("ldap")
    (home / "ldap.yaml").write_text(yaml.safe_dump({"devpi-ldap": {"url": directory.url, **LDAP}}))
    profile = {
        "extends": "default",
        "users": {"dev": {}},
        "server": {
            "plugins": ["devpi-ldap==2.2.0"],
            "option_files": {
                "ldap-config": {
                    "file": str(home / "ldap.yaml"),
                    "secrets": dict.fromkeys(KEYS, "env:DIRECTORY_PASSWORD"),
                }
            },
        },
        "indexes": {"root/dev": {"type": "stage", "bases": [], "volatile": True, "acl_upload": [":developers"]}},
    }
    (home / "team.yaml").write_text(yaml.safe_dump(profile))
    made = Cli(home=home, engine="process", upstream="http://127.0.0.1:9/simple/")
    words = ("--profile", str(home / "team.yaml"))
    refused = made.up(*words, "--no-pip", "--json", env=GIVEN)
    assert (refused.code, LOCK in refused.envelope["error"]["hint"]) == (3, True), refused.out
    locked = made.run("plugins", "lock", *words, "--json")
    assert locked.code == 0, locked.out
    assert {"devpi-ldap==2.2.0"} < set(locked.data["pinned"])
    unset = made.up(*words, "--no-pip", "--json")
    assert (unset.code, unset.envelope["error"]["hint"]) == (3, "export DIRECTORY_PASSWORD=..."), unset.out
    assert not made.data.exists()
    done = made.up(*words, "--no-pip", "--json", env=GIVEN)
    assert done.code == 0, done.out + done.err
    try:
        yield made
    finally:
        made.clean()


def log_in(cli: Cli, user: str, password: str) -> tuple[int, Any]:
    return request(cli.port, "POST", "/+login", body={"user": user, "password": password})


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def secret(cli: Cli, user: str) -> str:
    return cli.run("secret", "show", user).out.strip()


def assert_others_go_on(cli: Cli) -> None:
    assert log_in(cli, "root", secret(cli, "root"))[0] == 200
    assert log_in(cli, "dev", secret(cli, "dev"))[0] == 200
    assert request(cli.port, "GET", "/root/dev/+simple/")[0] == 200
    assert (
        request(cli.port, "PATCH", "/root", body={"title": "x"}, headers=basic("root", secret(cli, "root")))[0] == 200
    )


def test_who_is_in_the_directory_logs_in_and_groups_may_upload(cli: Cli) -> None:
    for user, password in PASSWORDS.items():
        assert log_in(cli, user, password)[0] == 200
        assert log_in(cli, user, password + "x")[0] == 401
    assert log_in(cli, "nobody", "at all")[0] == 401
    assert log_in(cli, "alice", "")[0] == 401
    wheel = make_wheel("private", "1.0")
    assert upload(cli, basic("alice", PASSWORDS["alice"]), "root/dev", wheel) == 200
    assert upload(cli, basic("bob", PASSWORDS["bob"]), "root/dev", wheel) == 403
    assert upload(cli, basic("alice", "wrong"), "root/dev", wheel) in (401, 403)
    assert_others_go_on(cli)
    status = cli.run("status", "--check", "--json", env=GIVEN)
    assert status.code == 0, status.out


@pytest.mark.parametrize("how", ["refused", "silent", "dark"])
def test_a_directory_that_is_down_stops_no_one_else(cli: Cli, directory: Directory, how: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while (status := log_in(cli, "bob", f"before {how}")[0]) != 401:  # until it is asked again
        assert status == 503 and time.monotonic() < deadline
        time.sleep(0.1)
    # More than the server has threads: with the plugin alone none of them is ever answered.
    with directory.down(how), ThreadPoolExecutor(80) as pool:
        logins = [pool.submit(log_in, cli, "alice", f"guess {how} {number}") for number in range(80)]
        assert_others_go_on(cli)
        answers = [login.result() for login in logins]
        assert {status for status, _ in answers} == {503}
        assert all("LDAP directory" in answer["message"] for _, answer in answers)
        new = basic("alice", f"new {how}")
        assert upload(cli, new, "root/dev", make_wheel("private", "2.0")) == 503


def test_a_changed_secret_reaches_the_running_server(cli: Cli) -> None:
    words = ("--profile", str(cli.home / "team.yaml"), "--no-pip")
    for given, code in (("outdated", 401), (READER_PASSWORD, 200)):
        done = cli.up(*words, env={"DIRECTORY_PASSWORD": given})
        assert done.code == 0, done.err
        assert log_in(cli, "alice", PASSWORDS["alice"])[0] == code
    options = cli.home / "state" / cli.name / "options"
    assert options.stat().st_mode & 0o777 == 0o700
    assert len(list(options.iterdir())) == 1


def test_a_directory_without_a_good_certificate_is_not_believed(cli: Cli, directory: Directory, tmp_path: Path) -> None:
    (environment,) = (cli.home / "state" / cli.name / "plugins").iterdir()
    script = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from devpi_ldap.main import LDAP\n"
        "from deployer.server.devpi import ldap\n"
        "ldap.install()\n"
        "try: print(LDAP(sys.argv[2]).validate('alice', sys.argv[3])['status'])\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    own = {name: {**search, "password": READER_PASSWORD} for name, search in LDAP.items()}
    good = {"ca_certs_data": directory.authority.file.read_text()}
    for tls, answer in (({}, "NoAnswer"), (good, "ok"), ({"validate": 0}, "ok")):
        told = {"url": f"ldaps://127.0.0.1:{directory.tls_port}", **({"tls": tls} if tls else {}), **own}
        (tmp_path / "ldap.yaml").write_text(json.dumps({"devpi-ldap": told}))
        words = (sys.executable, "-c", script, str(environment), str(tmp_path / "ldap.yaml"), PASSWORDS["alice"])
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout.strip() == answer, done.stderr


def test_what_is_replaced_in_the_plugin_is_documented(cli: Cli) -> None:
    (environment,) = (cli.home / "state" / cli.name / "plugins").iterdir()
    script = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from devpi_ldap import main\n"
        "before = {**vars(main), **{f'LDAP.{k}': v for k, v in vars(main.LDAP).items()}}\n"
        "from deployer.server.devpi import ldap, relied_on\n"
        "relied_on.check(web=False)\n"
        "ldap.install()\n"
        "after = {**vars(main), **{f'LDAP.{k}': v for k, v in vars(main.LDAP).items()}}\n"
        "print(*sorted(name for name in after if '__' not in name and after[name] is not before.get(name)))\n"
    )
    done = subprocess.run(
        (sys.executable, "-c", script, str(environment)), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    (row,) = (line for line in DOCS.read_text().splitlines() if line.startswith("| devpi-ldap"))
    assert sorted(row.split("|")[2].replace("`", "").replace(",", " ").split()) == done.stdout.split()


def test_a_changed_list_of_plugins_is_drift_and_needs_a_lock(cli: Cli) -> None:
    text = (cli.home / "team.yaml").read_text()
    other = cli.home / "other.yaml"
    other.write_text(text.replace("devpi-ldap==2.2.0", "devpi-ldap==2.1.1"))
    missing = cli.run("plan", "--profile", str(other), "--port", str(cli.port), "--json", env=GIVEN)
    assert (missing.code, LOCK in missing.envelope["error"]["hint"]) == (3, True), missing.out
    none = cli.home / "none.yaml"
    none.write_text(yaml.safe_dump({**yaml.safe_load(text), "server": {}}))
    words = ("--profile", str(none), "--port", str(cli.port), "--data", str(cli.data), "--engine", "process")
    changed = cli.run("plan", *words, "--json")
    assert (changed.code, "devpi-ldap==2.2.0" in changed.out) == (10, True), changed.out


def test_doctor_sees_an_environment_that_is_not_whole(cli: Cli) -> None:
    (environment,) = (cli.home / "state" / cli.name / "plugins").iterdir()
    aside = cli.home / "aside"
    assert "plugins" in cli.run("doctor", env=GIVEN).out
    (module,) = environment.glob("ldap3-*.dist-info")
    module.rename(aside)
    try:
        found = json.loads(cli.run("doctor", "--json", env=GIVEN).out)
    finally:
        aside.rename(module)
    (check,) = (one for one in found["data"]["checks"] if one["name"] == "plugins")
    assert (check["level"], "ldap3" in check["evidence"]) == ("failure", True), check


def test_no_password_is_logged_or_stored(cli: Cli) -> None:
    """Last in this file: after all that was done above."""
    places = [cli.home / "state" / cli.name / "process", cli.data]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "server.log" for path in files)
    words = [word.encode() for word in (READER_PASSWORD, *PASSWORDS.values())]
    assert [path for path in files if any(word in path.read_bytes() for word in words)] == []
