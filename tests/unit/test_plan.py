"""What a profile means on a host: every decision, every refusal, with facts made up for the purpose."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from deployer.errors import ConflictError, DeployerError, EngineError, Refused
from deployer.plan import Plan, plan
from deployer.plan.conflicts import base_url
from deployer.plan.data import CONTAINER_UID, data_path
from deployer.plan.facts import Ceiling, Content, DataFacts, Facts, PortFacts
from deployer.plan.order import mirrors_below
from deployer.plan.versions import LAYOUTS
from deployer.profile.models import Credentials, Image, Index, Network, Profile, Server
from deployer.spec import LABEL_NAME, Container, EngineInfo, EngineName, Mount, NetworkMode, Port, State

HOME = Path("/home/someone")
DATA = DataFacts(path=HOME / ".cache/devpi", content=Content.ABSENT, parent=HOME, uid=1000, gid=1000)
FACTS = Facts(
    engine=EngineInfo(name=EngineName.DOCKER, version="27.1"),
    uid=1000,
    gid=1000,
    home=HOME,
    port=PortFacts(number=3141),
    data=DATA,
    image_ref="localhost/deployer-devpi:1",
    image_build="b" * 64,
    version="0.1",
)
ROOT = replace(FACTS, uid=0, gid=0, data=replace(DATA, uid=0, gid=0))
PROCESS = replace(FACTS, engine=EngineInfo(name=EngineName.PROCESS, version="6.20.3"))


def make(profile: Profile | None = None, facts: Facts = FACTS, **changes: Any) -> Plan:
    return plan(profile or Profile(), replace(facts, **changes), name="devpi", profile_name="default")


def with_data(facts: Facts = FACTS, **changes: Any) -> Facts:
    assert facts.data is not None
    return replace(facts, data=replace(facts.data, **changes))


def refuse(kind: type[DeployerError], profile: Profile | None = None, facts: Facts = FACTS) -> DeployerError:
    """The refusal: of the wanted kind, one line of cause, and with a cure."""
    with pytest.raises(kind) as caught:
        make(profile, facts)
    error = caught.value
    assert isinstance(error, DeployerError)
    assert error.message and "\n" not in error.message
    assert error.hint and "\n" not in error.hint
    return error


def test_a_default_container_is_hardened_and_published_on_loopback_only() -> None:
    spec = make().spec
    assert spec.read_only
    assert spec.user == "1000:1000"
    assert spec.network is NetworkMode.BRIDGE
    assert [(p.host_ip, p.host_port, p.container_port) for p in spec.ports] == [("127.0.0.1", 3141, 3141)]
    assert spec.limits.memory == "256m"
    assert spec.limits.pids
    assert dict(spec.env) == {}


@pytest.mark.parametrize(
    ("ceiling", "wanted", "nofile", "nproc"),
    [
        (None, 4096, 4096, 0),
        (Ceiling(nofile=20000, nproc=9000), 4096, 4096, 9000),
        (Ceiling(nofile=1024, nproc=9000), 4096, 1024, 9000),
        (Ceiling(nofile=1024, nproc=9000), 0, 1024, 9000),
        (Ceiling(nofile=0, nproc=9000), 0, 0, 9000),
    ],
)
def test_podman_is_asked_for_no_more_than_this_root_may_give(
    ceiling: Ceiling | None, wanted: int, nofile: int, nproc: int
) -> None:
    profile, podman = Profile(server=Server(nofile=wanted)), EngineInfo(name=EngineName.PODMAN, version="4.3.1")
    limits = make(profile, replace(ROOT, engine=podman, ceiling=ceiling)).spec.limits
    assert (limits.nofile, limits.nproc) == (nofile, nproc)
    # Docker's daemon is not a child of ours, and has limits of its own.
    limits = make(profile, replace(ROOT, ceiling=ceiling)).spec.limits
    assert (limits.nofile, limits.nproc) == (wanted, 0)


def test_host_network_listens_at_the_bind_address_and_publishes_nothing() -> None:
    made = make(Profile(network=Network(mode="host")))
    assert made.spec.ports == ()
    assert made.spec.command[made.spec.command.index("--host") + 1] == "127.0.0.1"


def test_a_bridged_server_listens_on_its_own_port_whatever_is_published() -> None:
    made = make(port=PortFacts(number=4000))
    assert made.url == "http://127.0.0.1:4000"
    assert made.spec.command[made.spec.command.index("--port") + 1] == "3141"
    assert made.spec.ports[0].host_port == 4000


def test_a_process_gets_the_host_path_and_no_image() -> None:
    made = make(facts=PROCESS)
    assert made.image is None
    assert made.spec.command[made.spec.command.index("--serverdir") + 1] == str(DATA.path)
    assert made.network.mode is NetworkMode.HOST


def test_a_process_serves_where_the_profile_says() -> None:
    network, server = Network(bind=ip_address("127.0.0.5")), Server(metrics="127.0.0.1:9100")
    spec = make(Profile(network=network, server=server), PROCESS).spec
    assert (spec.name, spec.image, spec.build) == ("devpi", "devpi-server-6.20.3", FACTS.image_build)
    options = dict(pairwise(spec.command))
    assert [options[key] for key in ("--host", "--port", "--metrics")] == ["127.0.0.5", "3141", "127.0.0.1:9100"]
    assert spec.mounts == (Mount(kind="bind", source=str(DATA.path), target=str(DATA.path)),)
    assert spec.ports == (Port(host_ip="127.0.0.5", host_port=3141, container_port=3141),)


def test_our_own_image_is_that_of_the_facts_and_the_profile() -> None:
    made = make(Profile(image=Image(base="base:1"), server=Server(version="7")))
    assert made.image is not None
    assert (made.image.ref, made.image.own, made.image.build) == (FACTS.image_ref, True, FACTS.image_build)
    assert (made.image.base, made.image.major) == ("base:1", "7")


@pytest.mark.parametrize(
    ("selinux", "data", "relabel"), [(True, "bind", True), (False, "bind", False), (True, "volume", False)]
)
def test_only_a_directory_is_relabelled_and_only_for_selinux(selinux: bool, data: str, relabel: bool) -> None:
    facts = replace(FACTS, selinux=selinux)
    spec = make(facts=facts).spec if data == "bind" else make(Profile(data="volume:packages"), facts, data=None).spec
    assert spec.mounts[0].relabel is relabel


def test_an_image_of_others_has_its_own_port_and_place() -> None:
    image = Image(
        ref="x:1", data_path="/devpi", port=3142, command=("run", "it"), env={"A": "b"}, stop_signal="SIGTERM"
    )
    spec = make(Profile(image=image)).spec
    assert (spec.image, spec.build, spec.command) == ("x:1", "", ("run", "it"))
    assert (spec.mounts[0].target, spec.ports[0].container_port, spec.stop_signal) == ("/devpi", 3142, "SIGTERM")
    assert dict(spec.env)["A"] == "b"


def test_root_gives_the_data_to_nobody_that_exists_and_never_to_itself() -> None:
    made = make(facts=ROOT)
    assert made.spec.user == f"{CONTAINER_UID}:{CONTAINER_UID}"
    assert (made.data.uid, made.data.create) == (CONTAINER_UID, True)


def test_existing_data_keeps_its_owner_when_root_deploys() -> None:
    made = make(facts=with_data(ROOT, content=Content.DEVPI, uid=33, gid=33))
    assert made.spec.user == "33:33"
    assert not made.data.create


ROOTLESS = EngineInfo(name=EngineName.PODMAN, version="5", rootless=True)


def test_a_rootless_engine_runs_as_the_invoking_user() -> None:
    for name in (EngineName.DOCKER, EngineName.NERDCTL):
        spec = make(engine=replace(ROOTLESS, name=name)).spec
        assert (spec.user, spec.userns) == ("0:0", "")
    spec = make(engine=ROOTLESS).spec
    assert (spec.user, spec.userns) == ("1000:1000", "keep-id")
    # Another user inside is still the invoking one on the host.
    spec = make(Profile(image=Image(ref="x", user="77:78")), engine=ROOTLESS).spec
    assert (spec.user, spec.userns) == ("77:78", "keep-id:uid=77,gid=78")
    spec = make(Profile(data="volume:packages"), engine=ROOTLESS, data=None).spec
    assert (spec.user, spec.userns) == ("", "")


def test_limits_that_cannot_be_held_are_left_out_and_told() -> None:
    made = make(Profile(server=Server(cpus=0)), engine=replace(ROOTLESS, unheld=("memory", "pids", "cpus")))
    assert (made.spec.limits.memory, made.spec.limits.pids, made.spec.limits.nofile) == ("", 0, 4096)
    (warning,) = made.warnings
    assert "memory, pids here" in warning
    assert make(engine=ROOTLESS).warnings == ()


def test_a_restart_policy_that_is_not_kept_is_left_out_and_told() -> None:
    unkept = ("on-failure", "unless-stopped")
    old = replace(ROOTLESS, name=EngineName.NERDCTL, unkept=unkept, keeps_from="containerd 1.7")
    for policy, given in (("unless-stopped", "no"), ("on-failure:3", "no"), ("always", "always"), ("no", "no")):
        made = make(Profile(server=Server(restart=policy)), engine=old)
        assert made.spec.restart == given
        assert [f"restart: {policy} needs containerd 1.7" in warning for warning in made.warnings] == [
            True for _ in range(policy != given)
        ]


def test_lingering_is_told_where_the_server_would_end_with_the_last_logout() -> None:
    told = {answer: make(engine=ROOTLESS, lingering=answer).warnings for answer in (True, False, None)}
    assert [len(told[answer]) for answer in (True, False, None)] == [0, 1, 0]
    assert "loginctl enable-linger" in told[False][0]
    assert make(lingering=False).warnings == ()


@pytest.mark.parametrize(
    ("engine", "uid", "mode", "refused"),
    [
        (EngineInfo(name=EngineName.DOCKER, version="1"), 1000, "bridge", False),
        (EngineInfo(name=EngineName.DOCKER, version="1"), 0, "host", True),
        (EngineInfo(name=EngineName.DOCKER, version="1", rootless=True), 1000, "bridge", True),
        (ROOTLESS, 1000, "bridge", True),
        (EngineInfo(name=EngineName.PROCESS, version="6.20.3"), 1000, "host", True),
        (EngineInfo(name=EngineName.PROCESS, version="6.20.3"), 0, "host", False),
    ],
)
def test_a_port_for_root_only(engine: EngineInfo, uid: int, mode: str, refused: bool) -> None:
    profile = Profile(network=Network(port=80, mode=mode))  # type: ignore[arg-type]
    facts = replace(FACTS, engine=engine, uid=uid, port=PortFacts(number=80, privileged=True))
    if refused:
        assert "root" in refuse(ConflictError, profile, facts).message
    else:
        assert make(profile, facts).url == "http://127.0.0.1:80"


def test_a_volume_belongs_to_the_user_of_the_image() -> None:
    made = make(Profile(data="volume:packages"), data=None)
    assert made.spec.user == ""
    assert (made.spec.mounts[0].kind, made.spec.mounts[0].source) == ("volume", "packages")


def test_the_ca_bundle_of_the_host_is_mounted_and_named() -> None:
    spec = make(ca_file=Path("/etc/ssl/bundle.pem")).spec
    assert dict(spec.env)["REQUESTS_CA_BUNDLE"] == spec.mounts[1].target
    assert spec.mounts[1].source == "/etc/ssl/bundle.pem"
    assert spec.mounts[1].read_only


def test_a_proxy_is_passed_on_only_when_asked_for() -> None:
    proxies = {"HTTPS_PROXY": "http://proxy.example.com:8080"}
    assert "HTTPS_PROXY" not in dict(make(proxies=proxies).spec.env)
    assert "HTTPS_PROXY" in dict(make(Profile(network=Network(proxy=True)), proxies=proxies).spec.env)


def test_only_what_matters_to_the_container_makes_another_one() -> None:
    same = make().spec.sha256()
    assert make(version="9.9").spec.sha256() == same
    assert make(image_build="c" * 64).spec.sha256() != same
    assert make(Profile(server=Server(memory="512m"))).spec.sha256() != same


def test_an_image_of_somebody_else_gets_its_own_paths() -> None:
    image = Image(ref="example.com/devpi:1", data_path="/devpi/server", env={"A": "b"}, stop_signal="SIGTERM")
    spec = make(Profile(image=image)).spec
    assert spec.command == ()
    assert (spec.mounts[0].target, spec.stop_signal, dict(spec.env)["A"]) == ("/devpi/server", "SIGTERM", "b")
    assert spec.build == ""


@pytest.mark.parametrize(
    ("facts", "kind", "word"),
    [
        (with_data(path=Path("/")), Refused, "system or home directory"),
        (with_data(path=HOME), Refused, "system or home directory"),
        (with_data(path=Path("/proc/self/x")), Refused, "system or home directory"),
        (with_data(path=Path("/etc")), Refused, "system or home directory"),
        (with_data(symlink_to=Path("/srv/real"), content=Content.EMPTY), Refused, "symbolic link"),
        (with_data(content=Content.FOREIGN), Refused, "files of other programs"),
        (with_data(content=Content.NOT_A_DIRECTORY), ConflictError, "not a directory"),
        (with_data(content=Content.UNREADABLE, uid=0), ConflictError, "is not readable"),
        (with_data(parent_writable=False), ConflictError, "can't be created"),
        (with_data(read_only=True), Refused, "read-only"),
        (with_data(free_bytes=1 << 20), Refused, "1 MiB free"),
        (with_data(free_inodes=10), Refused, "inodes"),
        (with_data(content=Content.DEVPI, uid=7), ConflictError, "uid 7"),
        (with_data(ROOT, content=Content.DEVPI, uid=0), ConflictError, "chown"),
    ],
)
def test_a_data_directory_that_can_not_be_used(facts: Facts, kind: type[DeployerError], word: str) -> None:
    error = refuse(kind, facts=facts)
    assert word in f"{error.message} {error.hint}"


def test_a_data_directory_that_others_can_read_is_closed() -> None:
    assert make(facts=with_data(content=Content.DEVPI, mode=0o755)).data.tighten
    assert not make(facts=with_data(content=Content.DEVPI, mode=0o700)).data.tighten


def test_an_empty_directory_of_root_is_given_away_but_never_files() -> None:
    assert make(facts=with_data(ROOT, content=Content.EMPTY)).data.tighten


def test_a_volume_needs_an_engine() -> None:
    refuse(ConflictError, Profile(data="volume:x"), replace(PROCESS, data=None))


def test_a_taken_port_names_its_holder() -> None:
    error = refuse(ConflictError, facts=replace(FACTS, port=PortFacts(number=80, free=False, holder="pid 7 (nginx)")))
    assert "pid 7 (nginx)" in error.message


def test_a_container_without_our_label_is_left_alone() -> None:
    stranger = Container(id="1", name="devpi", state=State.RUNNING, image="x")
    assert "not deployer's" in refuse(ConflictError, facts=replace(FACTS, current=stranger)).message


def test_an_address_that_others_reach_needs_insistence() -> None:
    network = Network(bind=ip_address("0.0.0.0"))
    assert "--expose" in refuse(Refused, Profile(network=network)).hint
    exposed = make(Profile(network=network.model_copy(update={"expose": True})))
    assert exposed.warnings
    assert exposed.url == "http://127.0.0.1:3141"


def test_an_address_that_others_reach_is_safe_once_each_index_has_readers() -> None:
    network = Network(bind=ip_address("0.0.0.0"))
    pypi, dev = Index(type="mirror", read=(":AUTHENTICATED:",)), Index(type="stage", bases=("root/pypi",))
    made = make(Profile(network=network, indexes={"root/pypi": pypi, "root/dev": dev}))
    assert any("without encryption" in warning for warning in made.warnings)
    for everybody in (None, (":ANONYMOUS:", "dev")):
        opened = {"root/pypi": pypi.model_copy(update={"read": everybody}), "root/dev": dev}
        refused = refuse(Refused, Profile(network=network, indexes=opened))
        assert "root/pypi, root/dev" in str(refused)
        assert "read:" in refused.hint
    alone = {"root/pypi": pypi, "root/dev": Index(type="stage")}
    assert "root/dev" in str(refuse(Refused, Profile(network=network, indexes=alone)))


def test_another_image_does_not_know_readers() -> None:
    indexes = {"root/pypi": Index(type="mirror", read=()), "root/dev": Index(type="stage")}
    refused = refuse(Refused, Profile(image=Image(ref="example.com/devpi:1"), indexes=indexes))
    assert "read:" in str(refused)


def test_an_exposed_server_answers_every_name_until_some_are_listed() -> None:
    def allowed(**network: object) -> list[str]:
        command = make(Profile(network=Network.model_validate(network))).spec.command
        return [word for before, word in pairwise(command) if before == "--allow-host"]

    open_to_all = {"bind": "0.0.0.0", "expose": True}
    assert allowed() == []
    assert allowed(hosts=["a.example", "b.example"]) == ["a.example", "b.example"]
    assert allowed(**open_to_all) == ["*"]
    assert allowed(**open_to_all, hosts=["a.example"]) == ["a.example"]
    assert allowed(**open_to_all, outside_url="https://a.example") == []


def stage(*bases: str) -> Index:
    return Index(type="stage", bases=bases)


MIRRORS = {"root/a": Index(type="mirror", url="https://a.example.com/"), "root/b": Index(type="mirror")}


def test_two_mirrors_under_one_stage_are_refused_also_through_another_stage() -> None:
    direct = MIRRORS | {"root/dev": stage("root/a", "root/b")}
    assert "root/a and root/b" in refuse(Refused, Profile(indexes=direct)).message
    indirect = MIRRORS | {"root/mid": stage("root/a"), "root/dev": stage("root/mid", "root/b")}
    assert "root/dev" in refuse(Refused, Profile(indexes=indirect)).message


def ordered(*bases: str) -> Index:
    return Index(type="ordered", bases=bases)


def test_the_refusal_names_the_two_safe_ways_and_the_key_that_insists() -> None:
    hint = refuse(Refused, Profile(indexes=MIRRORS | {"root/dev": stage("root/a", "root/b")})).hint
    assert all(word in hint for word in ("type: ordered", "upload the private packages", "accept_confusion: true"))


def test_an_ordered_index_may_have_two_mirrors_and_be_a_base_itself() -> None:
    indexes = MIRRORS | {"root/dev": ordered("root/a", "root/b"), "root/team": stage("root/dev")}
    assert make(Profile(indexes=indexes)).warnings == ()


def test_an_ordered_index_beside_a_mirror_that_it_does_not_have_keeps_nothing_apart() -> None:
    indexes = {
        **MIRRORS,
        "root/c": Index(type="mirror", url="https://c.example.com/"),
        "root/ab": ordered("root/a", "root/b"),
        "root/dev": stage("root/ab", "root/c"),
    }
    assert "root/dev would merge the mirrors" in refuse(Refused, Profile(indexes=indexes)).message


def test_credentials_need_the_address_that_they_are_for() -> None:
    index = Index(type="mirror", credentials=Credentials(token="env:TOKEN"))
    assert (
        "index URL of this host's pip"
        in refuse(Refused, Profile(indexes={"root/a": index, "root/dev": stage("root/a")})).message
    )


def test_insisting_on_confusion_is_told_as_a_warning() -> None:
    insists = Index(type="stage", bases=("root/a", "root/b"), accept_confusion=True)
    (warning,) = make(Profile(indexes=MIRRORS | {"root/dev": insists})).warnings
    assert "root/dev merges the mirrors root/a and root/b" in warning


def test_an_image_that_does_not_know_the_order_is_refused() -> None:
    profile = Profile(
        indexes=MIRRORS | {"root/dev": ordered("root/a", "root/b")}, image=Image(ref="example.com/devpi:6")
    )
    assert "does not support type ordered" in refuse(Refused, profile).message


def test_one_mirror_reached_on_two_ways_is_one_mirror() -> None:
    indexes = {"root/a": MIRRORS["root/a"], "root/x": stage("root/a"), "root/dev": stage("root/x", "root/a")}
    assert mirrors_below(indexes, "root/dev") == ("root/a",)
    assert make(Profile(indexes=indexes))


def test_bases_in_a_circle_end() -> None:
    assert mirrors_below({"root/a": stage("root/b"), "root/b": stage("root/a")}, "root/a") == ()


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    indexes = {
        "root/pypi": Index(type="mirror", url="https://user:hunter22@a.example.com/"),
        "root/dev": stage("root/pypi"),
    }
    error = refuse(Refused, Profile(indexes=indexes))
    assert "hunter22" not in f"{error.message}{error.hint}{error.details}"


def test_an_upstream_of_pip_with_credentials_is_refused_only_where_it_would_be_used() -> None:
    facts = replace(FACTS, upstream="https://user:hunter22@a.example.com/", upstream_source="PIP_INDEX_URL")
    error = refuse(Refused, facts=facts)
    assert "hunter22" not in f"{error.message}{error.hint}{error.details}"
    indexes = {"root/pypi": MIRRORS["root/a"], "root/dev": stage("root/pypi")}
    assert make(Profile(indexes=indexes), facts)


def test_all_refusals_are_told_at_once() -> None:
    profile = Profile(
        network=Network(bind=ip_address("0.0.0.0")), indexes=MIRRORS | {"root/dev": stage("root/a", "root/b")}
    )
    assert "0.0.0.0" in " ".join(refuse(Refused, profile).details)


@pytest.mark.parametrize(
    ("choice", "name", "expected"),
    [
        ("home", "devpi", HOME / ".cache/devpi"),
        ("home", "ci", HOME / ".cache/devpi-ci"),
        ("cache", "devpi", Path("/var/cache/devpi")),
        ("lib", "x", Path("/var/lib/devpi-x")),
        ("opt", "devpi", Path("/opt/devpi")),
        ("~/packages", "ci", HOME / "packages"),
        ("/srv/packages", "ci", Path("/srv/packages")),
        ("temp", "ci", Path("/tmp/devpi-7-ci")),
        ("volume:packages", "devpi", None),
    ],
)
def test_data_path(choice: str, name: str, expected: Path | None) -> None:
    assert data_path(choice, name=name, home=HOME, uid=7) == expected


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("::1", "http://[::1]:1"),
    ],
)
def test_base_url(bind: str, expected: str) -> None:
    assert base_url(ip_address(bind), 1) == expected


def test_metrics_are_published_beside_the_server_and_off_by_default() -> None:
    assert "--metrics" not in make().spec.command
    wanted = Profile(server=Server(metrics="127.0.0.1:9555"))
    spec = make(wanted).spec
    assert [(p.host_ip, p.host_port, p.container_port) for p in spec.ports] == [
        ("127.0.0.1", 3141, 3141),
        ("127.0.0.1", 9555, 9141),
    ]
    assert spec.command[spec.command.index("--metrics") + 1] == "0.0.0.0:9141"
    process = make(wanted, PROCESS).spec
    assert process.command[process.command.index("--metrics") + 1] == "127.0.0.1:9555"
    refuse(Refused, Profile(server=Server(metrics="0.0.0.0:9555")))


def test_releases_are_pushed_nowhere_unless_origins_are_named() -> None:
    assert "--push-to" not in make().spec.command
    named = ("https://upload.example.com", "http://[::1]:8080")
    assert make(Profile(server=Server(push_to=named))).spec.command[-4:] == (
        *("--push-to", named[0]),
        *("--push-to", named[1]),
    )


def test_rules_of_mirrors_are_told_only_where_they_differ() -> None:
    assert not {"--not-found-expiry", "--keep-deleted"} & set(make().spec.command)
    for facts in (FACTS, PROCESS):
        words = make(Profile(server=Server(not_found_expiry=0, keep_deleted=True)), facts).spec.command
        assert words[words.index("--not-found-expiry") + 1] == "0"
        assert "--keep-deleted" in words


def test_the_front_is_told_only_where_it_differs() -> None:
    assert "--front" not in make().spec.command
    assert make(Profile(server=Server(front="python"))).spec.command[-2:] == ("--front", "python")


SEVEN = Profile(server=Server(version="7"))


@pytest.mark.parametrize(("profile", "layout", "wanted"), [(SEVEN, "4", "7"), (Profile(), "5", "6")])
def test_data_of_another_major_version_is_refused_before_anything_stops(
    profile: Profile, layout: str, wanted: str
) -> None:
    facts = with_data(content=Content.DEVPI, layout=layout)
    error = refuse(Refused, profile, facts)
    assert f"which devpi-server {wanted} can't read" in error.message
    assert f'server.version: "{LAYOUTS[layout]}"' in error.hint
    foreign = Profile(image=Image(ref="registry.example.com/devpi:1"), server=profile.server)
    assert make(foreign, facts).image is not None  # which knows itself what it takes
    assert make(Profile(server=Server(version=LAYOUTS[layout])), facts).data.source == str(DATA.path)


def test_a_volume_is_of_the_version_that_runs_on_it() -> None:
    runs = Container(
        id="1",
        name="devpi",
        state=State.RUNNING,
        image="localhost/deployer-devpi:6.20.3",
        labels={LABEL_NAME: "devpi"},
        mounts=(Mount(kind="volume", source="packages", target="/data"),),
    )
    volume = {"data": "volume:packages"}
    facts = replace(FACTS, data=None, current=runs)
    error = refuse(Refused, Profile(server=Server(version="7"), **volume), facts)
    assert "holds data of devpi-server 6" in error.message
    assert make(Profile(**volume), facts).data.kind == "volume"


def test_a_process_is_the_devpi_server_that_is_installed() -> None:
    error = refuse(EngineError, SEVEN, PROCESS)
    assert "this environment has 6.20.3" in error.message
    assert "devpi-deployer[server7]" in error.hint
    seven = replace(PROCESS, engine=EngineInfo(name=EngineName.PROCESS, version="7.0.0b4"))
    assert make(SEVEN, seven).image is None
    assert "devpi-deployer[server]" in refuse(EngineError, Profile(), seven).hint


def test_a_directory_above_the_data_that_all_may_write_to_is_warned_about() -> None:
    assert not [line for line in make().warnings if "writable by all" in line]
    (warning,) = make(facts=with_data(writable_by_all=Path("/srv/shared"))).warnings
    assert "/srv/shared is writable by all; chmod o-w /srv/shared" in warning
