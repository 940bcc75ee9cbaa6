"""Reading and merging profiles: values mean what was written, problems come all at once and with an address."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployer.errors import ProfileError
from deployer.loader import Loaded, Override, _merge, available, flatten, load, parse_set, schema
from deployer.profile import Profile
from deployer.resources import profiles_dir
from deployer.strictyaml import MAX_BYTES, parse


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(text: str | bytes, name: str = "team.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def problems(ref: str, **kwargs: object) -> list[str]:
    """Every problem line of a profile that must be refused."""
    with pytest.raises(ProfileError) as caught:
        load(ref, **kwargs)  # type: ignore[arg-type]
    error = caught.value
    return list(error.details) or [f"{error.message} ({error.hint})"]


# What is shipped


def test_the_reference_is_the_defaults() -> None:
    assert load("reference").profile == Profile()


def test_the_reference_names_every_key() -> None:
    named = set(flatten(parse((profiles_dir() / "reference.yaml").read_bytes()).tree))
    for key in flatten(Profile().model_dump(mode="json")):
        if not key.startswith("indexes."):
            assert key in named, key


@pytest.mark.parametrize("name", ["default", "vpn", "single-user", "system", "ci", "reference"])
def test_every_shipped_profile_loads_and_fits_the_schema(name: str) -> None:
    assert load(name).profile
    jsonschema.validate(yaml.safe_load((profiles_dir() / f"{name}.yaml").read_text()), schema())


def test_shipped_profiles_mean_what_their_names_say() -> None:
    assert load("default").profile.network.mode == "bridge"
    assert load("default").profile.network.bind.is_loopback
    vpn = load("vpn").profile
    assert (vpn.network.mode, vpn.server.request_timeout >= 120, vpn.clients.timeout >= 120) == ("host", True, True)
    assert load("single-user").profile.data == "home"
    assert load("system").profile.data == "cache"
    ci = load("ci").profile
    assert (ci.network.port, ci.server.restart, ci.data) == (0, "no", "temp")


def test_the_schema_is_fresh() -> None:
    kept = json.loads((profiles_dir() / "schema.json").read_text())
    assert kept == json.loads(json.dumps(schema())), "python -m deployer.schema > profiles/schema.json"


# Merging


def test_sources_say_who_gave_each_value(write) -> None:  # type: ignore[no-untyped-def]
    ref = write("extends: vpn\nclients:\n  timeout: 7\n")
    loaded = load(ref, overrides=[Override("network.port", 0, "--port")])
    assert (loaded.profile.clients.timeout, loaded.profile.network.port) == (7, 0)
    assert loaded.profile.network.mode == "host"
    assert loaded.sources["clients.timeout"] == f"{ref}:3"
    assert loaded.sources["network.port"] == "--port"
    assert loaded.sources["network.mode"].startswith("vpn.yaml:")


def test_a_users_own_default_may_extend_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("extends: default\ndescription: mine\nnetwork: {port: 4000}\n")
    loaded = load("default", user_dir=tmp_path)
    assert loaded.profile.network.port == 4000
    assert len(loaded.files) == 2
    assert {p.description for p in available(tmp_path) if p.name == "default"} == {"mine"}


def test_an_index_is_added_changed_retyped_and_taken_away(write) -> None:  # type: ignore[no-untyped-def]
    ref = write("indexes:\n  root/dev: {volatile: true}\n  root/x: {type: stage, bases: [root/dev]}\n")
    indexes = load(ref).profile.indexes
    assert indexes["root/dev"].volatile is True
    assert indexes["root/dev"].bases == ("root/pypi",)
    assert set(indexes) == {"root/pypi", "root/dev", "root/x"}
    gone = load(write("indexes:\n  root/pypi: null\n  root/dev: {bases: []}\n")).profile.indexes
    assert set(gone) == {"root/dev"}
    retyped = load(write("indexes:\n  root/dev: {type: mirror, url: 'https://example.com/'}\n")).profile.indexes
    assert retyped["root/dev"].bases is None


def test_scalars_mean_what_their_field_says(write) -> None:  # type: ignore[no-untyped-def]
    profile = load(write("server: {version: 6, web: no, restart: no}\nimage: {env: {A: 1.10, B: 22:30}}\n")).profile
    assert (profile.server.version, profile.server.web, profile.server.restart) == ("6", False, "no")
    assert profile.image.env == {"A": "1.10", "B": "22:30"}


trees = st.recursive(
    st.text(max_size=5) | st.none(),
    lambda children: st.dictionaries(st.sampled_from("abcdef"), children, max_size=4),
    max_leaves=12,
)
mappings = st.dictionaries(st.sampled_from("abcdef"), trees, max_size=5)


@given(mappings, mappings)
def test_merging_the_same_again_changes_nothing(first, second) -> None:  # type: ignore[no-untyped-def]
    once: dict[str, object] = {}
    _merge(once, first)  # type: ignore[arg-type]
    _merge(once, second)  # type: ignore[arg-type]
    again = json.loads(json.dumps(once))
    _merge(again, second)
    assert again == once


@given(mappings)
def test_merging_copies_and_nothing_else(tree) -> None:  # type: ignore[no-untyped-def]
    into: dict[str, object] = {}
    _merge(into, tree)  # type: ignore[arg-type]
    assert into == tree


# Problems


def test_all_problems_at_once_each_with_its_line_and_a_suggestion(write) -> None:  # type: ignore[no-untyped-def]
    ref = write(
        "netwrk: {}\nengine: dockr\nserver:\n  memory: lots\nindexes:\n  root/dev:\n    type: stage\n"
        "    bases: [root/pipy]\nclients: {index: root/deb}\n"
    )
    told = "\n".join(problems(ref))
    for wanted in (
        f"{ref}:1: netwrk: unknown key (did you mean 'network'?)",
        f"{ref}:2: engine: expected auto, nerdctl, docker, podman or process, not 'dockr' (did you mean 'docker'?)",
        f"{ref}:4: server.memory: 'lots'",
        f"{ref}:8: indexes.root/dev.bases: unknown index 'root/pipy' (did you mean 'root/pypi'?)",
        f"{ref}:9: clients.index: unknown index 'root/deb' (did you mean 'root/dev'?)",
    ):
        assert wanted in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1\nb: *x\n", "anchors and aliases are not allowed"),
        ("x: !!python/object:os.system 1\n", "is not allowed"),
        ("engine: docker\nengine: podman\n", ":2: engine: given twice, first in line 1"),
        ("- a\n", "expected 'key: value' lines at the top"),
        ("engine: docker\n---\nengine: podman\n", "more than one document"),
        ("network: {port: 22:22}\n", "expected a whole number, not '22:22'"),
        ("network: {port: 99999}\n", "must be at most 65535"),
        ("network: {bind: localhost}\n", "expected an IP address"),
        ("server: {web: maybe}\n", "expected true or false"),
        ("image: {ref: --privileged}\n", "is not allowed here"),
        ("image: {ref: '-v/:/h'}\n", "is not allowed here"),
        ("data: volume:-x\n", "a volume's name"),
        ("data: somewhere\n", "expected one of cache"),
        ('data: "/srv/a\\nb"\n', "is not allowed here"),
        ("indexes: {root/../x: {type: stage}}\n", "is not allowed here"),
        ("indexes: {root/x: {type: mirror, bases: [root/pypi]}}\n", "has no bases"),
        ("indexes: {eve/x: {type: stage}}\n", "unknown user 'eve'"),
        (
            "indexes: {root/a: {type: stage, bases: [root/b]}, root/b: {type: stage, bases: [root/a]}}\n",
            "form a circle",
        ),
        ("extends: vpnn\n", "there is no profile named 'vpnn' (did you mean 'vpn'?)"),
        ("extends: ./nope.yaml\n", "there is no profile file"),
        ("extends: [a]\n", "expected the name of one profile"),
        ("a: [\n", "not YAML"),
        ("a: " + "[" * 30 + "]" * 30 + "\n", "nested deeper"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        ("engine: 'do\x00cker'\n", "not YAML"),
    ],
)
def test_problem(write, text: str | bytes, expected: str) -> None:  # type: ignore[no-untyped-def]
    ref = write(text)
    told = "\n".join(problems(ref))
    assert expected in told
    assert ref in told or "extends" in told


def test_a_profile_that_extends_itself(write) -> None:  # type: ignore[no-untyped-def]
    ref = write("extends: ./team.yaml\n")
    assert "leads back to itself" in problems(ref)[0]


@pytest.mark.parametrize(
    ("ref", "hint"), [("vnp", "'vpn'"), ("./nope.yaml", "profiles"), ("-rf", "profiles"), ("", "profiles")]
)
def test_a_profile_that_is_not_there(ref: str, hint: str) -> None:
    assert hint in problems(ref)[0]


def test_a_secret_in_an_address_is_not_repeated(write) -> None:  # type: ignore[no-untyped-def]
    ref = write("indexes:\n  root/x: {type: mirror, url: 'https://u:hunter22@exa mple.com'}\n")
    assert "hunter22" not in "".join(problems(ref))


def bomb() -> str:
    return "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefghij", "bcdefghijk", strict=True)
    )


@pytest.mark.parametrize("text", [bomb(), "x" * (MAX_BYTES + 10), "[" * 200_000, "a: 1\n" * 150_000, "{" * 900_000])
def test_an_attack_costs_little(write, text: str) -> None:  # type: ignore[no-untyped-def]
    ref = write(text)
    tracemalloc.start()
    with pytest.raises(ProfileError):
        load(ref)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000_000


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_is_a_profile_or_a_problem(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    try:
        assert isinstance(load(str(path)), Loaded)
    except ProfileError as error:
        assert error.message


# --set


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("network.port=0", "network.port", "0"),
        ("server.memory=", "server.memory", None),
        ("clients.configure=[]", "clients.configure", []),
        (
            "indexes.root/x={type: stage, bases: [root/pypi]}",
            "indexes.root/x",
            {"type": "stage", "bases": ["root/pypi"]},
        ),
        ("data=/srv/a=b", "data", "/srv/a=b"),
    ],
)
def test_set(text: str, key: str, value: object) -> None:
    override = parse_set(text)
    assert (override.key, override.value) == (key, value)


@pytest.mark.parametrize("text", ["network.port", "=1", "a=[", "a=&x 1", "a={b: 1, b: 2}"])
def test_set_that_can_not_be_understood(text: str) -> None:
    with pytest.raises(ProfileError):
        parse_set(text)


def test_set_of_an_unknown_key_is_told_as_such() -> None:
    assert problems("default", overrides=[parse_set("network.prt=1")]) == [
        "--set network.prt: network.prt: unknown key (did you mean 'port'?)"
    ]
