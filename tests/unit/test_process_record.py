"""What is on record of a process: read back as it was written, and never guessed at."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployer.engines.process import ProcessEngine, _environment
from deployer.engines.process_record import Record, Start, read_record, write_record
from deployer.errors import EngineError
from deployer.host.runner import Runner
from deployer.spec import LABEL_SPEC, ContainerSpec, Mount, Port, State

SPEC = ContainerSpec(
    name="devpi",
    image="devpi-server-6",
    command=("serve",),
    labels=(("io.devpi.deployer.name", "devpi"),),
    ports=(Port(host_ip="127.0.0.1", host_port=3141, container_port=3141),),
    mounts=(Mount(kind="bind", source="/data", target="/data"),),
    env=(("SSL_CERT_FILE", "/ca.pem"),),
)
RECORD = Record(env=dict(SPEC.env), spec=Start.of(SPEC), pid=7, mark="boot:1", started_at="2026-01-01T00:00:00.000Z")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "devpi" / "process" / "record.json"


def test_what_was_written_is_read(path: Path) -> None:
    assert read_record(path) is None
    write_record(path, RECORD)
    assert read_record(path) == RECORD
    assert RECORD.spec.labels[LABEL_SPEC] == SPEC.sha256()


@pytest.mark.parametrize(
    "changed",
    [
        {"pid": "7"},
        {"pid": True},
        {"mark": None},
        {"env": 1},
        {"spec": []},
        {"spec": {"ports": [{"host_port": 1}]}},
        {"spec": {"labels": 3}},
        {"env": {"PATH": 1}},
        {"spec": {"mounts": [{"kind": "bind", "source": None, "target": "/data"}]}},
        {"spec": {"command": ["serve", 1]}},
        {"spec": {"command": ["a\0b"]}},
    ],
    ids=str,
)
def test_a_damaged_one_is_told(path: Path, changed: dict[str, object]) -> None:
    write_record(path, RECORD)
    path.write_text(json.dumps(asdict(RECORD) | changed))
    with pytest.raises(EngineError, match="is damaged"):
        ProcessEngine(path.parents[2]).inspect("devpi")


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["env", "spec", "pid", "ports", "mark"]), inner)
        ),
    )
    .map(json.dumps)
    .map(str.encode)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_is_a_record_or_told_as_damaged(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(content)
    try:
        assert read_record(file) is not None
    except EngineError as error:
        assert "is damaged" in error.message


def test_a_record_can_not_choose_what_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = {"PYTHONPATH": "/tmp/x", "LD_PRELOAD": "/tmp/x.so", "PATH": "/tmp", "PYTHONSTARTUP": "/tmp/x"}
    write_record(path, replace(RECORD, env={**RECORD.env, **planted}))
    found = read_record(path)
    assert found is not None
    assert found.env == RECORD.env
    monkeypatch.setenv("PYTHONPATH", ":relative:/absolute:.:")
    assert _environment(found.env.items())["PYTHONPATH"] == "/absolute"


def test_one_of_a_process_that_had_ended_at_once_is_of_nobody(path: Path) -> None:
    done = Runner().run(("sh", "-c", "echo $$"))
    write_record(path, Record(env={}, spec=Start(), pid=int(done.stdout), mark=""))
    found = ProcessEngine(path.parents[2]).inspect("devpi")
    assert found is not None
    assert (found.state, found.pid) == (State.STOPPED, None)
