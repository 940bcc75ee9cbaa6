"""Which changes a running server takes itself, and which need another container."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer.errors import ConflictError, NotReadyError
from deployer.operations import apply
from deployer.operations.apply import Done, changes_in_place, ensure_container
from deployer.plan.facts import CertificateFacts, Content, DataFacts, Facts, PluginFacts, PortFacts
from deployer.plan.in_place import arguments, in_force, taken_by, takes
from deployer.profile.models import Network, Profile, Server, Tls
from deployer.protocol import Taken
from deployer.spec import LABEL_MADE, LABEL_SPEC, Container, Image, NetworkMode, State
from tests.fake_engine import FakeEngine
from tests.unit.test_plan import FACTS, PROCESS, make

PAGE = Path(__file__).parents[2] / "docs/explanation/changes.md"
BRIDGE = Network(mode="bridge")
SERVER: dict[str, Any] = {
    "version": "7",
    "web": "read",
    "request_timeout": 31,
    "offline": True,
    "mirror_cache_expiry": 60,
    "not_found_expiry": 61,
    "keep_deleted": True,
    "threads": 20,
    "front": "python",
    "metrics": "127.0.0.1:9141",
    "push_to": ("https://packages.example.com",),
    "oidc": (
        {
            "issuer": "https://ci.example.com",
            "audience": "https://packages.example.com",
            "claims": {"repository": "acme/*"},
            "user": "ci",
            "indexes": ("root/dev",),
        },
    ),
    "memory": "300m",
    "cpus": 1.5,
    "pids": 300,
    "nofile": 300,
    "restart": "no",
    "lifetime": "job",
    "stop_timeout": 11,
    "ready_timeout": 61,
    "log_max_size": "11m",
    "log_max_files": 4,
    "min_free": "65m",
    "budget": "10g",
    "cdn": 30,
    "plugins": ("devpi-ldap==2.2.0",),
    "options": {"autocreate-users": "true"},
    "option_files": {"ldap-config": {"file": "/etc/ldap.yaml"}},
}
NETWORK: dict[str, Any] = {
    "mode": "host",
    "bind": "127.0.0.2",
    "port": 3142,
    "expose": True,
    "outside_url": "https://packages.example.com",
    "trusted_proxies": ("192.0.2.1/32",),
    "hosts": ("packages.example.com",),
    "tls": Tls(cert="auto"),
    "ca_file": "",
    "proxy": True,
}
PLUGINS = PluginFacts(
    profile=Path("/home/someone/team.yaml"),
    lock="# deployer plugins lock: devpi-server 6 with devpi-ldap==2.2.0\ndevpi-ldap==2.2.0 --hash=sha256:0\n",
    lock_file=Path("/home/someone/team.plugins.lock"),
    environment=Path("/home/someone/state/devpi/plugins/0"),
    files=Path("/home/someone/state/devpi/options"),
    digests={"ldap-config": "0"},
)
FACTS_OF: dict[str, dict[str, Any]] = {
    "server.version": {"image_ref": "localhost/deployer-devpi:7", "image_build": "7" * 64},
    "server.plugins": {"plugins": PLUGINS, "image_ref": "localhost/deployer-devpi:1-p", "image_build": "8" * 64},
    "server.options": {"plugins": PLUGINS},
    "server.option_files": {"plugins": PLUGINS},
    "network.port": {"port": replace(FACTS.port, number=3142)},
    "network.tls": {"tls_port": PortFacts(number=3443), "certificate": CertificateFacts(own_ca=True)},
    "network.ca_file": {"ca_file": None},
    "network.proxy": {},
}
HERE = replace(FACTS, ca_file=Path("/etc/ssl/ca.pem"), proxies={"HTTP_PROXY": "http://proxy.example:8080"})


def test_every_key_is_changed_here() -> None:
    assert set(SERVER) == set(Server.model_fields)
    assert set(NETWORK) == set(Network.model_fields)


def running(profile: Profile, facts: Facts) -> Container:
    spec = replace(make(profile, facts).spec, made="1")
    engine = FakeEngine(name=facts.engine.name, stock={spec.image: Image(id="sha256:1", ref=spec.image)})
    engine.run(spec)
    return engine.held[spec.name]


def kind(key: str) -> str:
    """What a change of ``key`` means, on docker."""
    group, _, name = key.partition(".")
    value = {"server": SERVER, "network": NETWORK}[group][name]
    before = running(Profile(network=BRIDGE), HERE)
    model = Server(**{name: value}) if group == "server" else BRIDGE.model_copy(update={name: value})
    after = Profile(network=model if group == "network" else BRIDGE, server=model if group == "server" else Server())
    after = Profile.model_validate(after.model_dump())
    spec = make(after, replace(HERE, **FACTS_OF.get(key, {}))).spec
    if spec.sha256() == before.labels[LABEL_SPEC]:
        return "nothing of the server"
    return "other settings" if takes(spec, before) else "another container, or process"


def documented() -> dict[str, str]:
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    return {key: what for keys, what in rows for key in re.findall(r"`([a-z_.]+)`", keys) if "." in key}


@pytest.mark.parametrize("key", [*(f"server.{name}" for name in SERVER), *(f"network.{name}" for name in NETWORK)])
def test_the_page_says_what_each_key_changes(key: str) -> None:
    assert documented()[key] == kind(key)


def test_a_server_on_the_host_s_network_takes_another_address_of_metrics() -> None:
    host = Network(mode="host")
    facts = replace(PROCESS, ca_file=None)
    for one in (replace(HERE, ca_file=None), facts):
        spec = make(Profile(network=host, server=Server(metrics="127.0.0.1:9141")), one).spec
        assert takes(spec, running(Profile(network=host), one))


@pytest.mark.parametrize(
    "changed",
    [
        {"state": State.STOPPED},
        {"state": State.PAUSED},
        {"labels": {}},
        {"command": ("other", "program")},
        {"network": NetworkMode.OTHER},
    ],
)
def test_a_server_that_is_not_as_it_was_made_takes_nothing(changed: dict[str, Any]) -> None:
    before = running(Profile(network=BRIDGE), FACTS)
    spec = make(Profile(network=BRIDGE, server=Server(threads=20))).spec
    assert takes(spec, before)
    assert not takes(spec, replace(before, **changed))
    assert not takes(spec, replace(before, labels={**before.labels, "io.devpi.deployer.profile": "other"}))


def test_settings_of_another_container_are_not_in_force() -> None:
    before = running(Profile(network=BRIDGE), FACTS)
    wanted = make(Profile(network=BRIDGE, server=Server(threads=20))).spec
    taken = Taken(id="1", made="1", spec=wanted.sha256(), words=wanted.command)
    after = in_force(before, taken)
    assert (after.labels[LABEL_SPEC], arguments(after)) == (wanted.sha256(), wanted.command)
    assert taken_by(after, order="2") == replace(taken, id="2")
    for other in (None, replace(taken, made="2"), replace(taken, words=())):
        assert in_force(before, other) == before
    unmarked = replace(before, labels={key: value for key, value in before.labels.items() if key != LABEL_MADE})
    assert in_force(unmarked, replace(taken, made="")) == unmarked


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"id": 1, "words": []}', '{"id": "1", "words": 3}', None])
def test_invalid_settings_are_none(text: str | None) -> None:
    assert Taken.parse(text) is None


class Settings:
    """The server's part: takes what it is ordered, or fails."""

    def __init__(self, *fails: Exception | None) -> None:
        self.fails = list(fails)
        self.orders: list[Taken] = []

    def take(self, engine: FakeEngine, container: Container, taken: Taken, *, deadline: object) -> None:
        if self.fails and (error := self.fails.pop(0)) is not None:
            raise error
        self.orders.append(taken)

    def current(self, engine: FakeEngine, container: Container | None) -> Container | None:
        if container is None or not self.orders:
            return container
        return in_force(container, self.orders[-1])


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = Settings()
    monkeypatch.setattr(apply.settings, "take", made.take)
    monkeypatch.setattr(apply.settings, "current", made.current)
    return made


def test_a_change_is_taken_back_when_a_later_step_fails(settings: Settings, tmp_path: Path) -> None:
    facts = replace(FACTS, data=DataFacts(path=tmp_path, content=Content.DEVPI, uid=1000, gid=1000))
    before, after = (make(Profile(network=BRIDGE, server=one), facts) for one in (Server(), Server(threads=20)))
    image = Image(id="sha256:1", ref=before.spec.image, labels={"io.devpi.deployer.build-sha256": FACTS.image_build})
    engine = FakeEngine(stock={before.spec.image: image})
    with ExitStack() as kept:
        assert ensure_container(before, engine, None, image, kept) is Done.CREATED
        kept.pop_all()
    current = engine.held["devpi"]
    assert changes_in_place(after, current, image)
    with ExitStack() as rollback:
        assert ensure_container(after, engine, current, image, rollback) is Done.CHANGED
        assert settings.orders[-1].words == after.spec.command
    assert [order.words for order in settings.orders] == [after.spec.command, before.spec.command]
    assert settings.orders[-1].spec == before.spec.sha256()
    assert engine.held == {"devpi": current}
    # One that does not begin with its settings has its former ones: nothing is ordered again.
    settings.fails = [NotReadyError("no", hint="h")]
    with pytest.raises(NotReadyError), ExitStack() as rollback:
        ensure_container(after, engine, current, image, rollback)
    assert len(settings.orders) == 2
    # One that takes none is replaced.
    settings.fails = [ConflictError("no", hint="h")]
    with ExitStack() as rollback:
        assert ensure_container(after, engine, current, image, rollback) is Done.RECREATED
        rollback.pop_all()
    assert engine.held["devpi"].labels[LABEL_MADE] != current.labels[LABEL_MADE]
