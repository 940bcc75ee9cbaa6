"""What ``down --purge`` deletes: the data of its own deployment, and nothing that it can't prove to be that."""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from deployer import engines
from deployer.commands import down
from deployer.deployment.record import Applied, read_applied, write_applied
from deployer.engines.base import Engine
from deployer.errors import ConflictError, DeployerError, EngineUnreachable, Refused
from deployer.host.gather import mark_used
from deployer.operations import admit, environment, purge
from deployer.plan.facts import Usage
from deployer.protocol import PrivateFile
from deployer.spec import (
    LABEL_NAME,
    LABEL_URL,
    LABEL_USER,
    Container,
    EngineName,
    Mount,
    State,
    Volume,
)
from deployer.ui.output import UI
from tests.client_place import NOBODY, Place, as_root, give, in_child
from tests.fake_engine import FakeEngine

UUID, OTHER_UUID = "a" * 32, "b" * 32


class Down(FakeEngine):
    """An engine that does not answer."""

    def inspect(self, name: str) -> Container | None:
        raise EngineUnreachable("it does not answer", hint="start it")

    def containers(self) -> tuple[Container, ...]:
        raise EngineUnreachable("it does not answer", hint="start it")

    def volume(self, name: str) -> Volume | None:
        raise EngineUnreachable("it does not answer", hint="start it")


class Host:
    """A host with every engine, and one server directory."""

    def __init__(self, root: Path) -> None:
        self.state = root / "state"
        self.data = root / "srv" / "devpi"
        self.engines: dict[EngineName, FakeEngine] = {name: FakeEngine(name=name) for name in EngineName}

    def open(self, name: EngineName) -> Engine:
        return self.engines[name]

    @property
    def docker(self) -> FakeEngine:
        return self.engines[EngineName.DOCKER]

    def used(self, name: str = "devpi", *, uuid: str = UUID, path: Path | None = None) -> Path:
        """A server directory that the deployment ``name`` used; nobody when it is empty."""
        path = path or self.data
        (path / "+files").mkdir(parents=True)
        (path / ".nodeinfo").write_text(json.dumps({"uuid": uuid}))
        if name:
            mark_used(path, Usage(name=name, state=str(self.state), uid=os.geteuid()))
        return path

    def recorded(self, name: str = "devpi", *, uuid: str = UUID, engine: str = "docker", source: str = "") -> None:
        source = source or str(self.data)
        profile = {"data": source if source.startswith("/") else f"volume:{source}"}
        write_applied(name, applied(engine=engine, source=source, uuid=uuid, profile=profile))

    def runs(
        self,
        name: str = "devpi",
        *,
        label: str = "",
        engine: EngineName = EngineName.DOCKER,
        source: str = "",
        state: State = State.RUNNING,
        uid: int | None = None,
        read_only: bool = False,
    ) -> Container:
        source = source or str(self.data)
        kind = "bind" if source.startswith("/") else "volume"
        labels = {LABEL_NAME: label or name, LABEL_URL: "", LABEL_USER: str(os.geteuid() if uid is None else uid)}
        container = Container(
            id=f"{engine}-{name}",
            name=name,
            state=state,
            image="image",
            labels=labels,
            mounts=(Mount(kind=kind, source=source, target="/data", read_only=read_only),),
        )
        self.engines[engine].held[name] = container
        return container

    def down(self, name: str = "devpi", *, engine: str = "", purge: bool = True) -> bool:
        """Run the command; whether data was deleted."""
        ui = UI(out=io.StringIO(), err=io.StringIO())
        options = down.Options(name=name, engine=engine, purge=purge, yes=True)
        return bool(down.run(options, ui).data["purged"])

    def refuses(self, name: str = "devpi", *, kind: type[DeployerError] = ConflictError, engine: str = "") -> str:
        """The refusal, before the first effect."""
        before = [dict(one.held) for one in self.engines.values()]
        with pytest.raises(kind) as caught:
            self.down(name, engine=engine)
        assert [dict(one.held) for one in self.engines.values()] == before
        assert caught.value.hint
        return f"{caught.value.message} | {caught.value.hint}"


def applied(*, engine: str, source: str, uuid: str = UUID, profile: dict[str, object] | None = None) -> Applied:
    return Applied(
        profile_name="default",
        profile_ref="default",
        engine=engine,
        simple_url="",
        profile=profile or {},
        data_source=source,
        data_uuid=uuid,
    )


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Host(tmp_path)
    monkeypatch.setattr(engines, "open_engine", made.open)
    monkeypatch.setattr(admit, "open_engine", made.open)
    return made


@contextmanager
def server_on(path: Path) -> Iterator[None]:
    """A server holds the lock of the directory."""
    with (path / PrivateFile.LOCK.relative).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# Its own data


@pytest.mark.parametrize("state", list(State))
def test_a_deployment_goes_with_its_data(host: Host, state: State) -> None:
    host.used()
    host.recorded()
    host.runs(state=state)
    assert host.down()
    assert not host.data.exists() and host.docker.held == {} and read_applied("devpi") is None
    assert [path.name for path in host.data.parent.iterdir()] == []


def test_a_deployment_whose_container_is_gone_goes_too(host: Host) -> None:
    host.used()
    host.recorded()
    assert host.down()
    assert not host.data.exists()


def test_an_older_record_with_neither_place_nor_uuid(host: Host) -> None:
    host.used()
    write_applied("devpi", applied(engine="docker", source="", uuid="", profile={"data": str(host.data)}))
    assert host.down()


def test_without_purge_it_stays(host: Host) -> None:
    host.used()
    host.recorded()
    host.runs()
    assert not host.down(purge=False)
    assert host.data.exists() and host.docker.held == {}


# Data of another deployment


def test_data_that_another_deployment_used_since_stays(host: Host) -> None:
    host.used("new")
    host.recorded("old")
    told = host.refuses("old")
    assert "belongs to the deployment new" in told and told.endswith("deployer status --name new")
    assert host.data.exists()


@pytest.mark.parametrize("state", [State.RUNNING, State.STOPPED, State.PAUSED])
@pytest.mark.parametrize("engine", [EngineName.DOCKER, EngineName.PODMAN, EngineName.PROCESS])
def test_data_that_a_container_on_any_engine_has_stays(host: Host, engine: EngineName, state: State) -> None:
    host.used("")
    host.recorded("old")
    host.runs("new", engine=engine, state=state)
    assert f"new on {engine} uses" in host.refuses("old")


def test_a_container_that_was_renamed_is_told_with_its_name(host: Host) -> None:
    host.used()
    host.recorded()
    host.runs("renamed", label="devpi")
    assert "docker rename renamed devpi" in host.refuses()


@pytest.mark.parametrize("suffix", ["", "/+files", "/..", "/+files/../."])
def test_a_container_above_or_below_counts(host: Host, suffix: str) -> None:
    host.used("")
    host.recorded("old")
    host.runs("new", source=f"{host.data}{suffix}")
    assert "new on docker uses" in host.refuses("old")


def test_a_container_that_only_reads_it_does_not_count(host: Host) -> None:
    host.used()
    host.recorded()
    host.runs("backup", read_only=True)
    assert host.down()


def test_a_path_through_a_link_is_the_same_directory(host: Host, tmp_path: Path) -> None:
    host.used("")
    (tmp_path / "link").symlink_to(host.data.parent)
    host.recorded("old", source=str(tmp_path / "link/devpi"))
    host.runs("new")
    assert "new on docker uses" in host.refuses("old")


@as_root
def test_a_bind_mount_is_the_same_directory(host: Host, tmp_path: Path) -> None:
    host.used("")
    (tmp_path / "bound").mkdir()
    subprocess.run(["mount", "--bind", str(host.data), str(tmp_path / "bound")], check=True)
    try:
        host.recorded("old", source=str(tmp_path / "bound"))
        host.runs("new")
        assert "new on docker uses" in host.refuses("old")
    finally:
        subprocess.run(["umount", str(tmp_path / "bound")], check=True)


def test_data_of_another_uuid_stays(host: Host) -> None:
    host.used("", uuid=OTHER_UUID)
    host.recorded()
    assert f"holds the data of server {OTHER_UUID}" in host.refuses()


def test_data_of_another_user_stays(host: Host) -> None:
    host.used()
    mark_used(host.data, Usage(name="devpi", state="/home/other/state", uid=12345))
    host.recorded()
    told = host.refuses()
    assert "belongs to the deployment devpi of uid 12345" in told and "as uid 12345" in told


def test_data_of_another_state_directory_stays(host: Host) -> None:
    host.used()
    mark_used(host.data, Usage(name="devpi", state="/srv/state two", uid=os.geteuid()))
    host.recorded()
    assert host.refuses().endswith("| DEPLOYER_STATE_DIR='/srv/state two' deployer status --name devpi")


def test_a_container_has_one_name_for_all_state_directories(host: Host) -> None:
    host.used()
    mark_used(host.data, Usage(name="devpi", state="/srv/state", uid=os.geteuid()))
    host.runs()
    assert host.down()


def test_what_a_server_writes_about_its_user_can_do_no_harm(host: Host) -> None:
    host.used()
    mark_used(host.data, Usage(name="x; rm -rf ~", state=str(host.state), uid=os.geteuid()))
    host.recorded()
    assert host.refuses().endswith("| deployer status --name 'x; rm -rf ~'")


def test_a_deployment_of_another_user_is_left_alone(host: Host) -> None:
    host.used()
    host.runs(uid=12345)
    assert "belongs to uid 12345" in host.refuses()


# What can't be proven


def test_data_without_any_proof_stays(host: Host) -> None:
    host.used("")
    write_applied("devpi", applied(engine="docker", source="", uuid="", profile={"data": str(host.data)}))
    assert "nothing proves that" in host.refuses(kind=Refused)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uuid": 1}', '{"uuid": "a\\u0000"}', "[" * 100_000])
@pytest.mark.parametrize("file", [".nodeinfo", PrivateFile.USED_BY.relative])
def test_a_damaged_mark_proves_nothing(host: Host, file: str, text: str) -> None:
    host.used("")
    (host.data / ".deployer").mkdir()
    (host.data / file).write_text(text)
    host.recorded(uuid=OTHER_UUID)
    host.refuses(kind=DeployerError)
    assert host.data.exists()


def test_a_foreign_directory_stays(host: Host) -> None:
    host.data.mkdir(parents=True)
    (host.data / "me.jpg").touch()
    host.recorded()
    assert "is not a devpi data directory" in host.refuses(kind=Refused)


def test_a_link_stays_and_so_does_its_end(host: Host, tmp_path: Path) -> None:
    elsewhere = host.used(path=tmp_path / "elsewhere")
    host.data.parent.mkdir()
    host.data.symlink_to(elsewhere)
    host.recorded()
    host.refuses(kind=Refused)
    assert (elsewhere / ".nodeinfo").exists()


def test_another_server_inside_stays(host: Host) -> None:
    host.used()
    host.used("inner", path=host.data / "a" / "inner")
    host.recorded()
    assert "a/inner is not part of the index" in host.refuses(kind=Refused)


@as_root
def test_what_is_mounted_inside_stays(host: Host, tmp_path: Path) -> None:
    host.used()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/me.jpg").touch()
    inside = host.data / "with space"
    inside.mkdir()
    subprocess.run(["mount", "--bind", str(tmp_path / "photos"), str(inside)], check=True)
    try:
        host.recorded()
        assert "with space is not part of the index" in host.refuses(kind=Refused)
        assert (tmp_path / "photos/me.jpg").exists()
    finally:
        subprocess.run(["umount", str(inside)], check=True)


@as_root
def test_data_that_cannot_be_deleted_is_told_before_the_effect(host: Host, tmp_path: Path) -> None:
    host.used()
    host.recorded()
    host.runs()
    subprocess.run(["mount", "--bind", str(host.data), str(host.data)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(host.data)], check=True)
        assert "is mounted read-only" in host.refuses(kind=Refused)
    finally:
        subprocess.run(["umount", str(host.data)], check=True)


@pytest.mark.parametrize("state", [State.STOPPED, None])
def test_data_under_a_running_server_stays(host: Host, state: State | None) -> None:
    host.used()
    host.recorded()
    if state is not None:
        host.runs(state=state)
    with server_on(host.data):
        assert "a server runs on" in host.refuses()


def test_a_lock_that_cannot_be_judged_is_not_free(host: Host, tmp_path: Path) -> None:
    host.used("")
    host.recorded()
    (tmp_path / "elsewhere").mkdir()
    (host.data / ".deployer").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in host.refuses(kind=Refused)


def test_a_server_that_starts_meanwhile_keeps_its_data(host: Host) -> None:
    host.used()
    host.recorded()
    doomed = admit.admit("devpi", Mount(kind="bind", source=str(host.data), target="/data"), None)
    with server_on(host.data), pytest.raises(ConflictError, match="a server runs on"):
        purge.purge(doomed, UI(quiet=True))
    assert (host.data / ".nodeinfo").exists()


# Engines that do not answer


@pytest.mark.parametrize("engine", ["", "process"], ids=["any", "another"])
def test_the_recorded_engine_has_to_answer(host: Host, engine: str) -> None:
    host.used()
    host.recorded()
    host.engines[EngineName.DOCKER] = Down()
    host.refuses(kind=EngineUnreachable, engine=engine)
    assert host.data.exists()


def test_another_engine_need_not(host: Host) -> None:
    host.used()
    host.recorded()
    host.engines[EngineName.PODMAN] = Down(name=EngineName.PODMAN)
    assert host.down()


# Deleting


def test_a_damaged_record_deletes_nothing(host: Host) -> None:
    host.used()
    host.recorded()
    (host.state / "devpi/applied.json").write_text("{")
    host.refuses(kind=DeployerError)
    assert host.data.exists()


def test_what_an_interrupted_deletion_left_goes_too(host: Host) -> None:
    host.used()
    host.recorded()
    aside = host.data.with_name(".devpi.purged")
    aside.mkdir()
    (aside / "left").touch()
    assert host.down()
    assert not aside.exists()


def test_a_link_in_the_place_of_leftovers_is_not_followed(host: Host, tmp_path: Path) -> None:
    host.used()
    host.recorded()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    host.data.with_name(".devpi.purged").symlink_to(tmp_path / "mine")
    assert host.down()
    assert (tmp_path / "mine/file").exists()


@as_root
def test_a_mount_point_is_emptied(host: Host) -> None:
    host.data.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(host.data)], check=True)
    try:
        (host.data / "+files").mkdir()
        (host.data / ".nodeinfo").write_text(json.dumps({"uuid": UUID}))
        host.recorded()
        assert host.down()
        assert list(host.data.iterdir()) == []
    finally:
        subprocess.run(["umount", str(host.data)], check=True)


@as_root
def test_what_root_restored_is_refused_before_the_effect(
    host: Host, shared: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user can't delete it: nothing is set aside or half deleted, and the hint is complete."""
    host.state, host.data = shared.home / "state", shared.home / "data"
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(host.state))
    host.used()
    host.recorded()
    give(shared.home, NOBODY)
    for path in (host.data / ".nodeinfo", host.data / "+files"):
        os.chown(path, 0, 0)

    def as_user() -> None:
        with pytest.raises(ConflictError, match="belongs to uid 0") as caught:
            host.down()
        assert caught.value.hint == f"sudo chown -R {NOBODY}:{NOBODY} {host.data}"

    assert in_child(as_user, uid=NOBODY) == 0
    assert (host.data / ".nodeinfo").exists()


# Data that is thrown away


def test_temporary_data_goes_unasked(host: Host) -> None:
    host.used()
    write_applied("devpi", applied(engine="docker", source=str(host.data), profile={"data": "temp"}))
    host.runs()
    assert host.down(purge=False)


def test_other_data_of_such_a_deployment_does_not(host: Host, tmp_path: Path) -> None:
    """A later `up --keep` that failed left its container on other data, and the record as it was."""
    host.used()
    temp = str(tmp_path / "temp")
    write_applied("devpi", applied(engine="docker", source=temp, uuid=OTHER_UUID, profile={"data": "temp"}))
    host.runs()
    assert not host.down(purge=False)
    assert host.data.exists()


# Volumes


def volume(host: Host, *, label: str = "devpi", engine: EngineName = EngineName.DOCKER, uid: int | None = None) -> None:
    labels = {LABEL_NAME: label, LABEL_USER: str(os.geteuid() if uid is None else uid)} if label else {}
    host.engines[engine].volumes["v"] = Volume(name="v", labels=labels)


def test_a_volume_goes_with_its_deployment(host: Host) -> None:
    volume(host)
    host.recorded(source="v")
    host.runs(source="v")
    assert host.down()
    assert host.docker.volumes == {}


def test_only_that_of_the_recorded_engine(host: Host) -> None:
    volume(host)
    volume(host, engine=EngineName.PODMAN)
    host.recorded(source="v", engine="podman")
    assert host.down()
    assert set(host.docker.volumes) == {"v"} and host.engines[EngineName.PODMAN].volumes == {}


@pytest.mark.parametrize("label", ["", "other"])
def test_a_volume_without_our_label_stays(host: Host, label: str) -> None:
    volume(host, label=label)
    host.recorded(source="v")
    assert "does not carry the labels" in host.refuses(kind=Refused)


def test_a_volume_of_another_user_stays(host: Host) -> None:
    volume(host, uid=12345)
    host.recorded(source="v")
    assert "does not carry the labels" in host.refuses(kind=Refused)


def test_a_volume_that_another_container_has_stays(host: Host) -> None:
    volume(host)
    host.recorded(source="v")
    host.runs("new", source="v", state=State.STOPPED)
    assert "new on docker uses the volume v" in host.refuses()
    host.runs(source="v")
    assert "new on docker uses the volume v" in host.refuses()


def test_a_volume_that_another_deployment_recorded_stays(host: Host) -> None:
    """Its label names the first deployment that used it, for labels of volumes can't change."""
    volume(host)
    host.recorded(source="v")
    host.recorded("new", source="v")
    assert "also the data of the deployment new" in host.refuses()


def test_a_directory_that_another_deployment_recorded_stays(host: Host) -> None:
    """A server that is not ours leaves no mark of who used the directory last."""
    host.used("")
    host.recorded()
    host.recorded("new")
    assert "also the data of the deployment new" in host.refuses()
    host.runs()
    assert host.down()


def test_a_volume_without_a_recorded_engine_stays(host: Host) -> None:
    volume(host)
    host.recorded(source="v", engine="rkt")
    assert "is not recorded" in host.refuses(kind=Refused)


def test_a_volume_that_is_gone_is_no_error(host: Host) -> None:
    host.recorded(source="v")
    assert not host.down()


def test_the_engine_of_a_volume_has_to_answer(host: Host) -> None:
    host.recorded(source="v")
    host.engines[EngineName.DOCKER] = Down()
    host.refuses(kind=EngineUnreachable)


def test_labels_of_a_container_are_its_own(host: Host) -> None:
    assert replace(host.runs(), labels={LABEL_USER: "1"}).of_another(2)


def test_what_transparent_commands_left_goes_with_the_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path))
    key = tmp_path / "demo" / environment.DIRECTORY / "host/key.pem"
    key.parent.mkdir(parents=True)
    key.write_text("key")
    environment.forget("demo")
    environment.forget("demo")
    assert not key.parent.parent.exists()
    assert (tmp_path / "demo").is_dir()
