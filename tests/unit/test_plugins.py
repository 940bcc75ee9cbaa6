"""Plugins of a profile: which are refused, what the plan makes of them, and what is built and written."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer.bundle import archive
from deployer.devpi.topology import EMPTY
from deployer.errors import ProfileError, Refused
from deployer.host import plugins as host_plugins
from deployer.image import PLUGINS_LOCK, build_digest, dockerfile, prepare, reference
from deployer.operations import option_files
from deployer.operations.bundle_load import require_modest
from deployer.operations.bundle_parts import profile_for_there
from deployer.operations.pip_wheels import Wheel
from deployer.operations.plugins import absent, tidy
from deployer.plan.facts import PluginFacts
from deployer.plan.plugins import FILES_TARGET, PluginPlan, head
from deployer.profile.load import load
from deployer.profile.models import Image, OptionFile, Profile, Server
from deployer.profile.plugins import UNFIT
from deployer.spec import LABEL_BUILD, Mount
from tests.unit.test_image_context import made
from tests.unit.test_plan import FACTS, PROCESS, make, refuse

PIN = "devpi-ldap==2.2.0"
NAMED = Profile(server=Server(plugins=(PIN,)))
LOCK = f"{head(NAMED)}\n{PIN} \\\n    --hash=sha256:{'a' * 64}\n"
STATE = Path("/home/someone/state/devpi")
FOUND = PluginFacts(
    profile=Path("/home/someone/team.yaml"),
    lock=LOCK,
    lock_file=Path("/home/someone/team.plugins.lock"),
    environment=STATE / "plugins/0",
    files=STATE / "options",
)
WITH_FILE = Profile(server=Server(plugins=(PIN,), option_files={"ldap-config": OptionFile(file="/etc/ldap.yaml")}))


def problems(tmp_path: Path, server: str) -> str:
    path = tmp_path / "team.yaml"
    path.write_text(f"extends: default\nserver: {server}\n")
    with pytest.raises(ProfileError) as caught:
        load(str(path))
    return "\n".join((caught.value.message, *caught.value.details, caught.value.hint))


@pytest.mark.parametrize("pin", ["devpi-ldap", "devpi-ldap>=2", "devpi-ldap==2.*", "devpi-ldap==2.2.0; x", "-r x", ""])
def test_a_plugin_without_an_exact_version_is_refused(pin: str, tmp_path: Path) -> None:
    assert "NAME==VERSION, like devpi-ldap==2.2.0" in problems(tmp_path, json.dumps({"plugins": [pin]}))


@pytest.mark.parametrize("name", UNFIT)
def test_a_plugin_that_does_harm_is_refused_with_reason_and_cure(name: str, tmp_path: Path) -> None:
    for spelled in (name, name.replace("-", "_").upper()):
        told = problems(tmp_path, json.dumps({"plugins": [f"{spelled}==1.0"]}))
        assert all(part in told for part in (name, *UNFIT[name])), told
        assert "team.yaml:2" in told


def test_a_theme_needs_the_pages_that_it_changes(tmp_path: Path) -> None:
    theme = {"plugins": ["devpi-semantic-ui==0.2.2"]}
    assert "server.web: devpi-web" in problems(tmp_path, json.dumps(theme))
    (tmp_path / "web.yaml").write_text(f"extends: default\nserver: {json.dumps({**theme, 'web': 'devpi-web'})}\n")
    assert load(str(tmp_path / "web.yaml")).profile.server.plugins == ("devpi-semantic-ui==0.2.2",)
    assert "twice" in problems(tmp_path, json.dumps({"plugins": ["devpi_ldap==2.2.0", PIN]}))


def test_a_secret_in_place_of_its_reference_is_not_shown(tmp_path: Path) -> None:
    file = {"file": "/etc/ldap.yaml", "secrets": {"devpi-ldap.user_search.password": "hunter2"}}
    told = problems(tmp_path, json.dumps({"option_files": {"ldap-config": file}}))
    assert "env:NAME" in told
    assert "hunter2" not in told


def test_a_lock_that_is_not_of_these_plugins_is_refused_with_the_command() -> None:
    for lock in ("", LOCK.replace("2.2.0", "2.1.0"), LOCK.replace("devpi-server 6", "devpi-server 7")):
        error = refuse(ProfileError, NAMED, replace(FACTS, plugins=replace(FOUND, lock=lock)))
        assert error.hint == "deployer plugins lock --profile /home/someone/team.yaml"
    seven = NAMED.model_copy(update={"server": NAMED.server.model_copy(update={"version": "7"})})
    assert refuse(ProfileError, seven, replace(FACTS, plugins=FOUND)).hint.endswith(" --set server.version=7")
    foreign = NAMED.model_copy(update={"image": Image(ref="registry.example.com/devpi:1")})
    assert "remove image.ref" in refuse(Refused, foreign, replace(FACTS, plugins=FOUND)).hint
    unreadable = replace(FACTS, plugins=replace(FOUND, digests={"ldap-config": ""}))
    assert "/etc/ldap.yaml can't be read" in refuse(ProfileError, WITH_FILE, unreadable).message


def test_what_a_container_is_told() -> None:
    facts = replace(FACTS, plugins=replace(FOUND, digests={"ldap-config": "0" * 16}))
    plan = make(WITH_FILE, facts)
    assert plan.spec.command[-4:] == ("--plugin", PIN, "--option", f"ldap-config={FILES_TARGET}/ldap-config")
    assert plan.plugins is not None
    source = str(plan.plugins.files)
    assert Mount(kind="bind", source=source, target=FILES_TARGET, read_only=True) in plan.spec.mounts
    assert plan.image is not None
    assert plan.image.plugins == LOCK
    other = make(WITH_FILE, replace(FACTS, plugins=replace(FOUND, digests={"ldap-config": "1" * 16})))
    assert other.spec.sha256() != plan.spec.sha256()


def test_what_a_process_is_told() -> None:
    facts = replace(PROCESS, plugins=replace(FOUND, digests={"ldap-config": "0" * 16}))
    profile = WITH_FILE.model_copy(update={"server": WITH_FILE.server.model_copy(update={"options": {"x": "1"}})})
    plan = make(profile, facts)
    assert plan.plugins is not None
    assert plan.plugins.environment == FOUND.environment
    words = plan.spec.command
    assert words[words.index("--plugins-in") + 1] == str(FOUND.environment)
    assert words[-3:] == ("x=1", "--option", f"ldap-config={plan.plugins.files}/ldap-config")
    assert len(plan.spec.mounts) == 1


def test_without_plugins_nothing_is_added() -> None:
    assert make().plugins is None
    assert not {"--plugin", "--option"} & {*make().spec.command}
    assert "plugins.txt" not in dockerfile(base="base:1", cert=False, secret=False)


def test_the_lock_is_in_the_image_its_name_and_its_digest(tmp_path: Path) -> None:
    request = prepare(tmp_path, base="base:1", pip=_no_pip(), secrets_ok=True, plugins=LOCK)
    assert (request.context / PLUGINS_LOCK).read_text() == LOCK
    text = (request.context / "Dockerfile").read_text()
    assert "COPY requirements.txt build-requirements.txt plugins.txt /tmp/\n" in text
    install = text.partition("-r /tmp/requirements.txt")[2].partition("COPY")[0].rstrip()
    assert install == " \\\n && $pip --only-binary=:all: --no-deps -r /tmp/plugins.txt"
    assert "--require-hashes" in text
    assert request.tag == reference("6", LOCK) != reference("6")
    assert dict(request.labels)[LABEL_BUILD] == build_digest("base:1", "6", LOCK)
    assert len({build_digest("base:1", "6", lock) for lock in ("", LOCK, LOCK + "#")}) == 3
    assert made(tmp_path / "plain").tag == reference("6")


def _no_pip() -> Any:
    from deployer.image import PipSettings

    return PipSettings()


def test_the_lock_stands_beside_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "team.yaml").write_text(f"extends: default\nserver: {{plugins: ['{PIN}']}}\n")
    loaded = load(str(tmp_path / "team.yaml"))
    found = host_plugins.plugin_facts(loaded.profile, loaded.files, name="devpi")
    assert found is not None
    assert (found.lock, found.lock_file) == ("", tmp_path / "team.plugins.lock")
    (tmp_path / "team.plugins.lock").write_text(LOCK)
    locked = host_plugins.plugin_facts(loaded.profile, loaded.files, name="devpi")
    assert locked is not None
    assert locked.lock == LOCK
    assert locked.environment != found.environment
    shipped = load("default")
    assert host_plugins.lock_file(shipped.files, "devpi") == tmp_path / "state/devpi/plugins.lock"
    assert host_plugins.plugin_facts(shipped.profile, shipped.files, name="devpi") is None


def planned(directory: Path, **files: OptionFile) -> PluginPlan:
    return PluginPlan(lock="", environment=None, files=directory / "options/0", contents=files)


def test_secrets_are_put_where_their_key_says(tmp_path: Path) -> None:
    file = tmp_path / "ldap.yaml"
    file.write_text("devpi-ldap: {url: ldaps://ldap.example.com, user_search: {base: dc=example}}\n")
    secrets = {"devpi-ldap.user_search.password": "env:LDAP_PASSWORD"}
    plan = planned(tmp_path, **{"ldap-config": OptionFile(file=str(file), secrets=secrets)})
    password = "quote\" colon: 'x' #"
    found = option_files.contents(plan, env={"LDAP_PASSWORD": password}, home=tmp_path)
    assert json.loads(found["ldap-config"])["devpi-ldap"]["user_search"] == {
        "base": "dc=example",
        "password": password,
    }
    plain = planned(tmp_path, **{"ldap-config": OptionFile(file=str(file))})
    assert option_files.contents(plain, env={}, home=tmp_path) == {"ldap-config": file.read_bytes()}
    for key, content in (("devpi-ldap.group.password", file.read_text()), ("a", "- a list\n"), ("a", "{")):
        file.write_text(content)
        wrong = planned(tmp_path, **{"ldap-config": OptionFile(file=str(file), secrets={key: "env:LDAP_PASSWORD"})})
        with pytest.raises(ProfileError) as caught:
            option_files.contents(wrong, env={"LDAP_PASSWORD": "hunter2"}, home=tmp_path)
        assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"


def test_files_are_written_closed_and_rolled_back(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    with ExitStack() as rollback:
        assert not option_files.write(plan, {"ldap-config": b"first"}, rollback)  # no server has read another one
        assert (plan.files.parent.stat().st_mode & 0o777, plan.files.stat().st_mode & 0o777) == (0o700, 0o755)
        assert (plan.files / "ldap-config").stat().st_mode & 0o777 == 0o644
    assert not plan.files.exists()
    with ExitStack() as kept:
        option_files.write(plan, {"ldap-config": b"first"}, kept)
        kept.pop_all()
    with ExitStack() as rollback:
        assert not option_files.write(plan, {"ldap-config": b"first"}, rollback)
        assert option_files.write(plan, {"ldap-config": b"second"}, rollback)
        assert (plan.files / "ldap-config").read_bytes() == b"second"
    assert (plan.files / "ldap-config").read_bytes() == b"first"


def test_only_what_the_plan_names_is_kept(tmp_path: Path) -> None:
    for name in ("plugins/0", "plugins/1", "options/0", "options/1"):
        (tmp_path / name).mkdir(parents=True)
    tidy(replace(planned(tmp_path), environment=tmp_path / "plugins/1"), tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")) == ["options/0", "plugins/1"]
    tidy(None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_environment_without_a_locked_version_is_not_whole(tmp_path: Path) -> None:
    plan = PluginPlan(lock=LOCK, environment=tmp_path, files=tmp_path)
    assert absent(plan) == (PIN,)
    metadata = tmp_path / "devpi_ldap-2.2.0.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: devpi_ldap\nVersion: 2.2.0\n")
    assert absent(plan) == ()


def test_a_bundle_carries_plugins_and_not_what_belongs_to_a_host() -> None:
    told = WITH_FILE.model_copy(update={"server": WITH_FILE.server.model_copy(update={"options": {"x": "1"}})})
    there = profile_for_there(EMPTY, told.model_dump(mode="json"), major="6")
    assert there["server"] == {"plugins": [PIN], "offline": True}
    assert archive._NAME.fullmatch(archive.LOCK)


@pytest.mark.parametrize(
    "server",
    [
        {"plugins": [PIN]},
        {"options": {"x": "1"}},
        {"option_files": {"x": {"file": "/etc/x", "secrets": {"a": "command:touch /tmp/x"}}}},
    ],
)
def test_a_bundle_of_unknown_origin_brings_no_plugins_and_no_commands(server: dict[str, Any]) -> None:
    require_modest("extends: default\nserver: {offline: true}\n")
    with pytest.raises(Refused) as caught:
        require_modest(f"extends: default\nserver: {json.dumps(server)}\n")
    assert f"server.{next(iter(server))}" in caught.value.message


def test_a_wheel_with_compiled_code_is_another_file_elsewhere() -> None:
    assert Wheel(file="ldap3-2.9.1-py2.py3-none-any.whl", sha256="").is_pure
    assert not Wheel(file="pyyaml-6.0.4-cp311-cp311-manylinux2014_x86_64.whl", sha256="").is_pure
