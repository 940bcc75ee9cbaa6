"""What ships: the reference is the defaults, the ready profiles mean what their names say, the schema is fresh."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from deployer import resources
from deployer.plan.order import merged
from deployer.profile.load import load
from deployer.profile.load.files import available
from deployer.profile.load.layers import flatten
from deployer.profile.models import Index, Profile, User
from deployer.profile.schema import schema
from deployer.profile.strictyaml import parse
from deployer.resources import profiles_dir

PRIVATE = ("private", "private-first", "public-first")
SHIPPED = tuple(sorted(("ci", "default", "guarded", *PRIVATE, "public", "reference", "single-user", "system", "vpn")))
REFERENCE = profiles_dir() / "reference.yaml"


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A directory of a user's own profiles that is empty."""
    return tmp_path


def test_exactly_these_are_shipped_each_with_a_description(alone: Path) -> None:
    found = available(alone)
    assert tuple(profile.name for profile in found) == SHIPPED
    assert all(profile.description for profile in found)


def test_the_reference_is_the_defaults(alone: Path) -> None:
    assert load("reference", user_dir=alone).profile == Profile()


def test_the_reference_names_every_key_with_a_comment() -> None:
    text = REFERENCE.read_text()
    named = set(flatten(parse(text.encode(), name="").tree))
    for key in flatten(Profile().model_dump(mode="json", exclude={"indexes"})):
        assert key in named, key
        assert re.search(rf"^ *{key.rpartition('.')[2]}:.*# ", text, re.MULTILINE), key


def test_what_the_reference_shows_in_comments_is_a_profile_too(tmp_path: Path) -> None:
    """Taking the comment signs away from the keys that have no default leaves a profile that loads."""
    text = re.sub(r"^( +)# (\w+):(.*)$", r"\1\2:\3", REFERENCE.read_text(), flags=re.MULTILINE)
    path = tmp_path / "all.yaml"
    head, _, rest = text.replace("users: {}", "users:   ").partition("  dev:\n")
    user, _, rest = rest.partition("\n\n")
    path.write_text(head + "  dev:\n" + re.sub(r"^", "  ", user, flags=re.MULTILINE) + "\n\n" + rest)
    profile = load(str(path)).profile
    assert profile.users["dev"].model_fields_set == set(User.model_fields)
    said = profile.indexes["root/pypi"].model_fields_set | profile.indexes["root/dev"].model_fields_set
    assert said == set(Index.model_fields)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_profile_loads_and_fits_the_schema(name: str, alone: Path) -> None:
    loaded = load(name, user_dir=alone)
    assert loaded.name == name
    assert loaded.files[0] == profiles_dir() / f"{name}.yaml"
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(loaded.files[0].read_text()))


def test_ready_profiles_say_only_what_differs(alone: Path) -> None:
    for name in set(SHIPPED) - {"reference", "default"}:
        tree = parse((profiles_dir() / f"{name}.yaml").read_bytes(), name=name).tree
        assert tree["extends"] == "default"
        assert load(name, user_dir=alone).files[1] == profiles_dir() / "default.yaml"


def test_default_is_for_this_host_only(alone: Path) -> None:
    network = load("default", user_dir=alone).profile.network
    assert (network.mode, network.bind.is_loopback, network.port) == ("auto", True, 3141)


def test_vpn_uses_the_hosts_network_and_is_patient(alone: Path) -> None:
    vpn = load("vpn", user_dir=alone).profile
    assert vpn.network.mode == "host"
    assert vpn.network.bind.is_loopback
    assert min(vpn.server.request_timeout, vpn.clients.timeout) >= 120
    assert vpn.server.ready_timeout > Profile().server.ready_timeout


def test_single_user_needs_no_root(alone: Path) -> None:
    profile = load("single-user", user_dir=alone).profile
    assert (profile.data, profile.clients.scope) == ("home", "user")


def test_system_is_for_every_user(alone: Path) -> None:
    profile = load("system", user_dir=alone).profile
    assert (profile.data, profile.clients.scope) == ("cache", "global")


def test_ci_leaves_nothing_behind(alone: Path) -> None:
    profile = load("ci", user_dir=alone).profile
    assert (profile.network.port, profile.server.restart, profile.data) == (0, "no", "temp")
    assert (profile.engine, profile.server.lifetime) == ("process", "job")
    assert profile.clients.configure == ()


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_upstream_is_known_by_reference_and_merged_with_nothing(name: str, alone: Path) -> None:
    indexes = load(name, user_dir=alone).profile.indexes
    credentials = indexes["root/private"].credentials
    assert credentials is not None and credentials.password == "env:PRIVATE_TOKEN"
    assert not any(merged(indexes, index) for index in indexes)


def test_the_order_of_a_ready_profile_is_what_its_name_says(alone: Path) -> None:
    first = load("private-first", user_dir=alone).profile.indexes
    assert (first["root/dev"].type, first["root/dev"].bases) == ("ordered", ("root/private", "root/pypi"))
    assert first["root/private"].only_owned
    last = load("public-first", user_dir=alone).profile.indexes
    assert (last["root/dev"].type, last["root/dev"].bases) == ("ordered", ("root/pypi", "root/private"))
    assert set(load("public", user_dir=alone).profile.indexes) == {"root/pypi"}
    assert set(load("private", user_dir=alone).profile.indexes) == {"root/private", "root/dev"}


def test_the_schema_is_fresh() -> None:
    kept = json.loads((profiles_dir() / "schema.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(schema())), "python -m deployer.profile.schema > profiles/schema.json"


def test_the_schema_describes_every_key() -> None:
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    for definition in (made, *made["$defs"].values()):
        for key, value in definition["properties"].items():
            assert value["description"], key


@pytest.mark.parametrize(
    "instance",
    [
        {"netwrk": {}},
        {"network": {"prt": 1}},
        {"indexes": {"dev": {"type": "stage"}}},
        {"indexes": {"root/dev": {"tpye": "stage"}}},
        {"server": {"memory": "lots"}},
    ],
)
def test_the_schema_refuses(instance: object) -> None:
    assert not jsonschema.Draft202012Validator(schema()).is_valid(instance)


@pytest.mark.parametrize(
    "instance",
    [
        {"extends": "./team.yaml", "indexes": {"root/dev": {"volatile": True}, "root/pypi": None}},
        {"users": {"dev": None}},
        {},
    ],
)
def test_the_schema_takes_a_part_of_a_profile(instance: object) -> None:
    jsonschema.Draft202012Validator(schema()).validate(instance)


def test_what_is_inside_the_package_comes_before_what_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "deployer"
    (tmp_path / "profiles").mkdir()
    package.mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.profiles_dir() == tmp_path / "profiles"
    (package / "profiles").mkdir()
    assert resources.profiles_dir() == package / "profiles"
    assert resources.templates_dir() == tmp_path / "templates"


def test_loading_a_profile_imports_nothing_that_it_does_not_need() -> None:
    code = "import sys; from deployer.profile.load import load; load(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jinja2", "httpx", "docker", "rich", "typer", "requests", "jsonschema"} & set(done.stdout.split())
