"""Whatever is in a file that deployer reads again, it is a record or told as damaged: never a traceback."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from deployer.clients import backups
from deployer.clients.backups import Backup
from deployer.commands import stats
from deployer.deployment.credentials import mirrors
from deployer.deployment.record import Applied, Overridden, read_applied, write_applied
from deployer.deployment.server_dir import ServerDir
from deployer.engines.process import ProcessEngine
from deployer.engines.process_record import Record, Start
from deployer.errors import DeployerError
from deployer.host.gather import data_facts, used_by, uuid_of
from deployer.operations import upstream_probe
from deployer.operations.purge import data_of, throw_away
from deployer.operations.recorded import client_index, deployed, dropped, recorded, spelt
from deployer.plan.facts import Measured, Reach, Vantage
from deployer.profile.load import Loaded
from deployer.profile.models import Profile
from deployer.protocol import Counted, PrivateFile, parsed
from deployer.spec import ExecResult, Mount, Port, State
from deployer.typed import built
from tests.fake_engine import FakeEngine
from tests.fuzzed import written

in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

APPLIED = {"schema": 1} | asdict(
    Applied(
        profile_name="team",
        profile_ref="/srv/team.yaml",
        engine="process",
        simple_url="http://127.0.0.1:3141/root/dev/+simple/",
        profile={"data": "home", "network": {"port": 3141}},
        data_source="/srv/devpi",
        data_uuid="a" * 32,
        overrides=[Overridden(key="network.port", value=3141, source="--port")],
    )
)
RECORD = asdict(
    Record(
        env={"PATH": "/bin"},
        spec=Start(
            labels={"io.devpi.deployer.name": "devpi", "io.devpi.deployer.url": "http://127.0.0.1:3141"},
            ports=(Port(host_ip="127.0.0.1", host_port=3141, container_port=3141),),
            mounts=(Mount(kind="bind", source="/srv/devpi", target="/srv/devpi"),),
            command=("serve",),
        ),
        pid=1 << 22,
        mark="boot:1",
        started_at="2026-01-01T00:00:00.000Z",
    )
)
SEEN = Vantage(answers=(Reach(url="http://a/", stage="tls", addresses=("127.0.0.1",), skew=1.5),), mtu={"eth0": 1500})
NETWORK = {"fingerprint": "f"} | asdict(Measured(bridge=SEEN, host=SEEN))
COUNTS = {
    "since": "2026",
    "indexes": {"root/dev": {"requests": 1, "hits": 1, "misses": 0, "bytes_served": 5, "bytes_saved": 5}},
    "upstreams": {"http://a": {"requests": 1.0, "failures": 0.0, "bytes": 5.0, "slowest": 0.5}},
    "read": [1, 2],
}
BACKUP = {
    "schema": 1,
    "path": "/home/a/pip.conf",
    "original": "W2dsb2JhbF0K",
    "mode": 0o644,
    "made": ["/home/a"],
    "writes": [{"sha256": "0" * 64, "values": {"index-url": "http://a/"}}],
}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state/devpi/process").mkdir(parents=True)
    return tmp_path / "state"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data/.deployer").mkdir(parents=True)
    return tmp_path / "data"


@given(content=written(APPLIED))
@in_one_directory
def test_the_record_of_up(state: Path, content: bytes) -> None:
    (state / "devpi/applied.json").write_bytes(content)
    try:
        found = read_applied("devpi")
    except DeployerError as error:
        assert error.hint
        return
    assert found is not None
    loaded = Loaded(profile=Profile(), name="default")
    try:  # all that reads from it
        recorded(found)
        overrides = deployed("default", found)[1]
        spelt("default", overrides)
        dropped("default", "devpi", loaded)
        throw_away("devpi", data_of("devpi", None))
        if (mount := data_of("devpi", None)) is not None and mount.kind == "bind":
            data_facts(Path(mount.source))
        client_index("devpi")
    except DeployerError as error:
        assert error.message
    write_applied("devpi", found)
    assert read_applied("devpi") == found


@given(content=written(RECORD))
@in_one_directory
def test_the_record_of_a_process(state: Path, content: bytes) -> None:
    (state / "devpi/process/record.json").write_bytes(content)
    engine = ProcessEngine(state)
    try:
        for container in engine.containers():
            assert container.state is State.STOPPED  # it has no process of ours
            container.of_another(0)
            assert all(Path(mount.source) for mount in container.mounts)
            assert all(port.host_port + 1 for port in container.ports)
    except DeployerError as error:
        assert error.hint


@given(content=written({"uuid": "a" * 32}, {"name": "devpi", "state": "/srv/state", "uid": 7}))
@in_one_directory
def test_the_marks_in_a_server_directory(data: Path, content: bytes) -> None:
    (data / ".nodeinfo").write_bytes(content)
    (data / PrivateFile.USED_BY.relative).write_bytes(content)
    assert isinstance(uuid_of(data), str)
    usage = used_by(data)
    assert usage is None or (isinstance(usage.name, str) and isinstance(usage.state, str))
    data_facts(data)


@given(content=written(NETWORK))
@in_one_directory
def test_the_record_of_a_measurement(state: Path, content: bytes) -> None:
    (state / "devpi/network.json").write_bytes(content)
    found = upstream_probe.recall("devpi", "f")
    assert found is None or isinstance(found.bridge, Vantage)


@given(content=written(asdict(SEEN)))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_the_output_of_a_probe(content: bytes) -> None:
    said = ExecResult(returncode=0, stdout=content.decode("utf-8", "replace"), stderr="")
    found = upstream_probe.read(said)
    assert found.failure or found.answers


@given(content=written(BACKUP))
@in_one_directory
def test_the_backup_of_a_client_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pip.conf"
    saved = backups.save(Backup(path=path, original=b"", mode=0o644, made=(), writes=()), state=tmp_path / "clients")
    saved.write_bytes(content)
    try:
        backups.load(path, state=tmp_path / "clients")
    except DeployerError as error:
        assert error.hint


@given(content=written(COUNTS))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_the_statistics(content: bytes) -> None:
    try:
        counts = built(Counted, parsed(content))
    except ValueError:
        return
    assert stats._text(counts)


@given(content=written({"http://a/": "Basic abc"}))
@in_one_directory
def test_the_credentials(data: Path, content: bytes) -> None:
    (data / PrivateFile.CREDENTIALS.relative).write_bytes(content)
    mount = Mount(kind="bind", source=str(data), target="/data")
    assert mirrors(ServerDir(engine=FakeEngine(), container="devpi", mount=mount)) is not None
