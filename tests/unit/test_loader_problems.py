"""What is wrong with a profile: all of it at once, each with an address and a cure, and no secret in it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployer.errors import ProfileError
from deployer.profile import strictyaml
from deployer.profile.load import Loaded, load
from deployer.profile.load.overrides import parse_set
from deployer.profile.models import Profile
from deployer.profile.strictyaml import MAX_BYTES, parse
from tests.profile_problems import problems


def test_all_problems_at_once_each_with_its_line_and_a_suggestion(write: Callable[..., str]) -> None:
    ref = write(
        "netwrk: {}\nengine: dockr\nserver:\n  memory: lots\nindexes:\n  root/dev:\n    type: stage\n"
        "    bases: [root/pipy]\nclients: {index: root/deb}\n"
    )
    told = "\n".join(problems(ref))
    for wanted in (
        f"{ref}:1: netwrk: unknown key (did you mean 'network'?)",
        f"{ref}:2: engine: expected auto, nerdctl, docker, podman, process, swarm or kubernetes, not 'dockr' "
        "(did you mean 'docker'?)",
        f"{ref}:4: server.memory: expected auto, or a whole number with a unit b, k, m or g, like 512m, not 'lots'",
        f"{ref}:8: indexes.root/dev.bases: unknown index 'root/pipy' (did you mean 'root/pypi'?)",
        f"{ref}:9: clients.index: unknown index 'root/deb' (did you mean 'root/dev'?)",
    ):
        assert wanted in told


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("", 0, "is empty (extends: default)"),
        ("# nothing\n---\n", 0, "is empty"),
        ("- a\n", 1, "expected 'key: value' lines at the top"),
        ("engine\n", 1, "expected 'key: value' lines at the top"),
        ("engine: docker\n---\nengine: podman\n", 2, "more than one document"),
        (b"engine: auto\ndata: \xff\n", 2, "not UTF-8"),
        (b"\xff\xfea\x00", 1, "not UTF-8"),
        ("a: [\n", 2, "not YAML"),
        ("a:\n\tb: 1\n", 2, "not YAML: found character that cannot start any token (indent with spaces"),
        ("a: *\n", 1, "(quote a value that starts with * or &)"),
        ("engine: 'do\x00cker'\n", 0, "not YAML"),
        ("a: " + "[" * 30 + "]" * 30 + "\n", 1, "nested deeper than 20 levels"),
        ("a: &x 1\n", 1, "anchors and aliases are not allowed"),
        ("a: 1\nb: *x\n", 2, "anchors and aliases are not allowed"),
        ("<<: {engine: docker}\n", 1, "merge keys are not allowed (use extends:"),
        ("x: !!python/object:os.system 1\n", 1, "the tag tag:yaml.org,2002:python/object:os.system is not allowed"),
        ("engine: !!str docker\n", 1, "is not allowed"),
        ("engine: docker\nengine: podman\n", 2, "engine: given twice, first in line 1"),
        ("? [a]\n: b\n", 1, "a key must be a word"),
        ("network: 5\n", 1, "network: expected 'key: value' lines below it"),
        ("network: {port: 22:22}\n", 1, "expected a whole number, not '22:22'"),
        ("network: {port: 1_000}\n", 1, "expected a whole number, not '1_000'"),
        ("network: {port: 0o7}\n", 1, "expected a whole number, not '0o7'"),
        ("network: {port: 80.0}\n", 1, "expected a whole number, not '80.0'"),
        ("network: {port: 99999}\n", 1, "must be at most 65535, not '99999'"),
        (f"network: {{port: {'9' * 5000}}}\n", 1, "is far too large"),
        ("network: {bind: localhost}\n", 1, "network.bind: expected an IP address, not 'localhost' (for example"),
        ("network: {bind: 0.0.0.0/0}\n", 1, "network.bind: expected an IP address, not '0.0.0.0/0'"),
        ("network: {outside_url: example.com}\n", 1, "expected an address that starts with http:// or https://"),
        ("server: {cpus: .inf}\n", 1, "expected a number"),
        ("server: {cpus: 1e400}\n", 1, "expected a number"),
        ("server: {keep_deleted: maybe}\n", 1, "expected true or false, not 'maybe'"),
        ("server:\n  memory:\n", 2, "server.memory: has no value"),
        ("extends: default\ncluster: {files_on_demand: [root/pipy]}\n", 2, "unknown index 'root/pipy' (did you mean"),
        ("extends: default\ncluster: {files_on_demand: [root/dev]}\n", 2, "[0]: 'root/dev' is no mirror, and each"),
        ("server: {version: 8}\n", 1, "server.version: expected 6 or 7, not '8'"),
        ("image: {ref: --privileged}\n", 1, "image.ref: expected an image:"),
        ("image: {ref: '-v/:/h'}\n", 1, "image.ref: expected an image:"),
        ("image: {command: run}\n", 1, "expected a list, not 'run' (command: [run])"),
        ("image: {user: 1000}\n", 1, "expected uid:gid as numbers"),
        ("image: {env: {1A: x}}\n", 1, "image.env.1A: expected a variable's name"),
        ("data: volume:-x\n", 1, "a volume's name"),
        ("data: somewhere\n", 1, "data: expected cache, lib, opt, home, temp, a path"),
        ('data: "/srv/a\\nb"\n', 1, "expected a text without control characters"),
        ("description: [a]\n", 1, "description: expected a text"),
        ("port: 1\n", 1, "port: unknown key (did you mean 'network.port' or 'image.port'?)"),
        ("server: {mode: host}\n", 1, "server.mode: unknown key (did you mean 'network.mode'?)"),
        ("users: {j.doe: {emial: x}}\n", 1, "users.j.doe.emial: unknown key (did you mean 'email'?)"),
        (
            "clients: {configure: [pip, conda]}\n",
            1,
            "clients.configure[1]: expected pip, uv, poetry or pdm, not 'conda'",
        ),
        ("clients: {index: dev}\n", 1, "clients.index: expected user/name"),
        ("indexes: {root/x: {}}\n", 1, "indexes.root/x.type: is missing (type: mirror, stage or ordered)"),
        (
            "indexes: {root/x: {type: stag}}\n",
            1,
            "expected mirror, stage or ordered, not 'stag' (did you mean 'stage'?)",
        ),
        ("indexes: {root/../x: {type: stage}}\n", 1, "indexes.root/../x: expected user/name"),
        ("indexes: {root/x: {type: mirror, bases: [root/pypi]}}\n", 1, "an index of type mirror has no bases"),
        ("indexes:\n  root/pipy:\n", 2, "is there to take away (did you mean 'root/pypi'?)"),
        ("indexes: {eve/x: {type: stage}}\n", 1, "unknown user 'eve' (users: {eve: {}})"),
        ("users: {eva: {}}\nindexes: {eve/x: {type: stage}}\n", 2, "unknown user 'eve' (did you mean 'eva'?)"),
        ("indexes: {root/dev: {bases: [root/dev]}}\n", 1, "root/dev.bases: circular bases: root/dev -> root/dev"),
        (
            "indexes: {root/a: {type: stage, bases: [root/b]}, root/b: {type: stage, bases: [root/a]}}\n",
            1,
            ".bases: circular bases: root/",
        ),
        ("extends: vpnn\n", 1, "extends: there is no profile 'vpnn' (did you mean 'vpn'?)"),
        ("extends: ./nope.yaml\n", 1, "extends: there is no profile './nope.yaml'"),
        ("extends: [a]\n", 1, "expected the name of one profile"),
    ],
)
def test_problem(write: Callable[..., str], text: str | bytes, line: int, expected: str) -> None:
    ref = write(text)
    (told,) = problems(ref)
    assert told.startswith(f"{ref}:{line}: " if line else f"{ref}: ")
    assert expected in told


def test_no_problem_speaks_pydantic(write: Callable[..., str]) -> None:
    """Every key with every kind of wrong value: whatever comes back is in our own words."""
    values = ["[]", "{}", "{a: b}", "[[a]]", "null", "'\\u00e9 x'", '"\\x07"', "-1", "1e999", "x" * 5000]
    for section, model in Profile.model_fields.items():
        fields = getattr(model.annotation, "model_fields", {})
        for line in [f"{section}: %s", *(f"{section}: {{{key}: %s}}" for key in fields)]:
            for value in values:
                try:
                    load(write(line % value))
                except ProfileError as error:
                    told = "\n".join((error.message, *error.details))
                    for foreign in ("Input should", "pydantic", "type=", "Value error", "valid", "lax-or-strict"):
                        assert foreign not in told, told


def test_problems_are_told_in_the_order_of_the_text_and_not_without_end(write: Callable[..., str]) -> None:
    ref = write("".join(f"k{n}: 1\n" for n in range(2000)))
    told = problems(ref)
    assert [line.split(": ")[0] for line in told] == [f"{ref}:{n}" for n in range(1, 26)]
    with pytest.raises(ProfileError, match="more than 25 problems in the profile"):
        load(ref)


def test_what_is_missing_below_causes_no_further_problems(write: Callable[..., str]) -> None:
    ref = write(
        "extends: ./gone.yaml\nindexes: {team/dev: {bases: [team/all]}}\nclients: {index: team/dev, tmeout: 1}\n"
    )
    told = problems(ref)
    assert len(told) == 2
    assert "extends" in told[0]
    assert "tmeout: unknown key (did you mean 'timeout'?)" in told[1]


def test_a_profile_that_extends_itself(write: Callable[..., str]) -> None:
    ref = write("extends: ./team.yaml\n")
    (told,) = problems(ref)
    assert told == f"{ref}:1: extends: './team.yaml' extends itself (remove one of the extends:)"


def test_profiles_that_extend_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("engine: auto\nextends: a\n")
    (told,) = problems("a", user_dir=tmp_path)
    assert told.startswith(f"{tmp_path}/b.yaml:2: extends: 'a' extends itself")


@pytest.mark.parametrize(
    "parent", ['"a\\0b/x.yaml"', '"a\\0b"', "./loop.yaml", "loop", "~nobody-of-this-name/x.yaml", "/"]
)
def test_a_parent_that_can_not_be_a_file(write: Callable[..., str], tmp_path: Path, parent: str) -> None:
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (told,) = problems(write(f"extends: {parent}\n"), user_dir=tmp_path)
    assert "team.yaml:1: extends: there is no profile " in told


def test_a_chain_has_an_end(tmp_path: Path) -> None:
    for n in range(12):
        (tmp_path / f"p{n}.yaml").write_text(f"extends: p{n + 1}\n")
    assert "p9.yaml:1: extends: more than 10 profiles" in problems("p0", user_dir=tmp_path)[0]


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("vnp", "did you mean 'vpn'?"),
        ("vpn.yaml", "did you mean 'vpn'?"),
        ("./nope.yaml", "deployer profiles"),
        ("-rf", "deployer profiles"),
        ("", "deployer profiles"),
        ("..", "deployer profiles"),
        ("../", "deployer profiles"),
        ("a" * 300, "deployer profiles"),
        ("/" + "a" * 300 + ".yaml", "deployer profiles"),
        ("~nobody-of-this-name/x.yaml", "deployer profiles"),
        ("a\0.yaml", "deployer profiles"),
        ("/dev/zero.yaml", "deployer profiles"),
        ("https://example.com/x.yaml", "not an address"),
        ("here", "--profile here.yml"),
    ],
)
def test_a_profile_that_is_not_there(ref: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    Path("here.yml").write_text("extends: default\n")
    (told,) = problems(ref, user_dir=tmp_path)
    assert told.startswith("there is no profile ")
    assert hint in told


SECRET = "hunter22"


@pytest.mark.parametrize(
    "text",
    [
        "indexes:\n  root/x: {type: mirror, url: 'https://u:%s@exa mple.com'}\n",
        "indexes:\n  root/x: {type: mirror, url: 'https://u:p@%s@exa mple.com'}\n",
        "indexes:\n  root/x: {type: mirror, url: 'https://u:p/%s@exa mple.com'}\n",
        "indexes:\n  root/x: {type: mirror, url: 'u:%s@example.com'}\n",
        "indexes:\n  root/x: {type: mirror, url: ['https://u:%s@example.com']}\n",
        "indexes:\n  root/x: {type: stage, bases: 'https://u:%s@example.com'}\n",
        "indexes:\n  'https://u:%s@example.com/': {type: mirror}\n",
        "indexes:\n  'https://u:%s@example.com/':\n",
        "https://u:%s@example.com/: 1\n",
        "'https://u:%s@example.com/': 1\n'https://u:%s@example.com/': 1\n",
        "extends: https://u:%s@example.com/x.yaml\n",
        "extends: 'https://u:%s@example.com/x'\n",
        "engine: https://u:%s@example.com/x\n",
        "data: u:%s@example.com\n",
        'image: {env: {TOKEN: "%s\\x07"}}\n',
        "image: {env: {'TO KEN': \"%s\"}}\n",
        "users: {dev: {password: %s}}\n",
        "password: %s\n",
        "x: !https://u:%s@example.com/ 1\n",
    ],
)
def test_a_secret_is_not_repeated(write: Callable[..., str], text: str) -> None:
    assert SECRET not in "".join(problems(write(text.replace("%s", SECRET))))


@pytest.mark.parametrize("text", ["https://u:%s@example.com/=1", "https://u:%s@example.com/", "network.port=u:%s@x"])
def test_a_secret_is_not_repeated_from_the_command_line(text: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load("default", overrides=[parse_set(text.replace("%s", SECRET))])
    error = caught.value
    assert SECRET not in "".join((error.message, error.hint, *error.details))


def bomb() -> str:
    return "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefghij", "bcdefghijk", strict=True)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bomb(), "anchors"),
        ("x" * (MAX_BYTES + 1), "larger than"),
        ("[" * 900_000, "nest"),
        ("{" * 900_000, "nest"),
        ("a: 1\n" * 150_000, "more than 10000"),
        ("[" + "[]," * 300_000 + "]", "more than 10000"),
        ("&a [" * 200_000, "anchors"),
        ("? " * 400_000, "nest"),
        ("- " * 400_000, "nest"),
        ("A" * 900_000, "expected 'key: value'"),
        ("engine: " + "A" * 900_000, "expected auto"),
        ("A" * 900_000 + ": 1", "not YAML"),
        (f"'{'A' * 500}': 1", "unknown key"),
        ('engine: "' + "\\x41" * 200_000 + '"', "expected auto"),
        ("engine: " + "a://" * 200_000, "expected auto"),
        ("engine: " + "a:@" * 200_000, "expected auto"),
        (
            "indexes: {" + "".join(f"root/i{n}: {{bases: [rooot/i{n}], type: stage}}, " for n in range(900)) + "}",
            "rooot/i24",
        ),
        (
            "indexes: {" + "".join(f"r/i{n}: {{bases: [r/i{n + 1}], type: stage}}, " for n in range(900)) + "}",
            "unknown",
        ),
    ],
)
def test_an_attack_costs_little(write: Callable[..., str], text: str, expected: str) -> None:
    """Each of these took gigabytes, minutes or the stack of a parser or a check without bounds.

    Memory is measured; time is left to the time limit of the suite. A newer parser refuses some in its own words.
    """
    ref = write(text)
    tracemalloc.start()
    told = problems(ref)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert expected in "".join(told)
    assert sum(map(len, told)) < 20_000
    assert peak < 50_000_000


@pytest.mark.parametrize("parser", ["CSafeLoader", "SafeLoader"])
def test_both_parsers_say_the_same(parser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(yaml, parser):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(strictyaml, "_LOADER", getattr(yaml, parser))
    text = b"a: ~\nb: '~'\nc:\nd: no\ne: [1.10, \"x\", {f: 22:30}]\ng: |\n  h\n"
    assert parse(text, name="x").tree == {
        "a": None,
        "b": "~",
        "c": None,
        "d": "no",
        "e": ["1.10", "x", {"f": "22:30"}],
        "g": "h\n",
    }


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_is_a_profile_or_a_problem(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    try:
        assert isinstance(load(str(path)), Loaded)
    except ProfileError as error:
        assert error.message
