"""Reading and merging profiles: values mean what was written, problems come all at once and with an address."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployer import strictyaml
from deployer.errors import ProfileError
from deployer.loader import Loaded, load
from deployer.loader.files import available
from deployer.loader.layers import flatten, merge
from deployer.loader.overrides import Override, parse_set
from deployer.profile import Profile
from deployer.strictyaml import MAX_BYTES, parse, parse_value


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
    merge(once, first)  # type: ignore[arg-type]
    merge(once, second)  # type: ignore[arg-type]
    again = json.loads(json.dumps(once))
    merge(again, second)
    assert again == once


@given(mappings)
def test_merging_copies_and_nothing_else(tree) -> None:  # type: ignore[no-untyped-def]
    into: dict[str, object] = {}
    merge(into, tree)  # type: ignore[arg-type]
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
        ("server: {web: maybe}\n", 1, "expected true or false, not 'maybe'"),
        ("server:\n  memory:\n", 2, "server.memory: has no value"),
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
        ("clients: {configure: [pip, uv]}\n", 1, "clients.configure[1]: expected pip, not 'uv'"),
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
        ("indexes: {root/dev: {bases: [root/dev]}}\n", 1, "root/dev.bases: a circle: root/dev -> root/dev"),
        (
            "indexes: {root/a: {type: stage, bases: [root/b]}, root/b: {type: stage, bases: [root/a]}}\n",
            1,
            ".bases: a circle: root/",
        ),
        ("extends: vpnn\n", 1, "extends: there is no profile 'vpnn' (did you mean 'vpn'?)"),
        ("extends: ./nope.yaml\n", 1, "extends: there is no profile './nope.yaml'"),
        ("extends: [a]\n", 1, "expected the name of one profile"),
    ],
)
def test_problem(write, text: str | bytes, line: int, expected: str) -> None:  # type: ignore[no-untyped-def]
    ref = write(text)
    (told,) = problems(ref)
    assert told.startswith(f"{ref}:{line}: " if line else f"{ref}: ")
    assert expected in told


def test_no_problem_speaks_pydantic(write) -> None:  # type: ignore[no-untyped-def]
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


def test_problems_are_told_in_the_order_of_the_text_and_not_without_end(write) -> None:  # type: ignore[no-untyped-def]
    ref = write("".join(f"k{n}: 1\n" for n in range(2000)))
    told = problems(ref)
    assert [line.split(": ")[0] for line in told] == [f"{ref}:{n}" for n in range(1, 26)]
    with pytest.raises(ProfileError, match="more than 25 problems in the profile"):
        load(ref)


def test_what_is_missing_below_causes_no_further_problems(write) -> None:  # type: ignore[no-untyped-def]
    ref = write(
        "extends: ./gone.yaml\nindexes: {team/dev: {bases: [team/all]}}\nclients: {index: team/dev, tmeout: 1}\n"
    )
    told = problems(ref)
    assert len(told) == 2
    assert "extends" in told[0]
    assert "tmeout: unknown key (did you mean 'timeout'?)" in told[1]


def test_a_profile_that_extends_itself(write) -> None:  # type: ignore[no-untyped-def]
    ref = write("extends: ./team.yaml\n")
    (told,) = problems(ref)
    assert told == f"{ref}:1: extends: './team.yaml' leads back to itself (take one of the extends: away)"


def test_profiles_that_extend_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("engine: auto\nextends: a\n")
    (told,) = problems("a", user_dir=tmp_path)
    assert told.startswith(f"{tmp_path}/b.yaml:2: extends: 'a' leads back to itself")


@pytest.mark.parametrize(
    "parent", ['"a\\0b/x.yaml"', '"a\\0b"', "./loop.yaml", "loop", "~nobody-of-this-name/x.yaml", "/"]
)
def test_a_parent_that_can_not_be_a_file(write, tmp_path: Path, parent: str) -> None:  # type: ignore[no-untyped-def]
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
    ],
)
def test_a_profile_that_is_not_there(ref: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
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
def test_a_secret_is_not_repeated(write, text: str) -> None:  # type: ignore[no-untyped-def]
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
def test_an_attack_costs_little(write, text: str, expected: str) -> None:  # type: ignore[no-untyped-def]
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


# --set


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("network.port=0", "network.port", "0"),
        ("server.memory=", "server.memory", ""),
        ("clients.configure=[]", "clients.configure", []),
        (
            "indexes.root/x={type: stage, bases: [root/pypi]}",
            "indexes.root/x",
            {"type": "stage", "bases": ["root/pypi"]},
        ),
        ("data=/srv/a=b", "data", "/srv/a=b"),
        ("indexes.root/pypi=null", "indexes.root/pypi", None),
        ("image.env.A='no'", "image.env.A", "no"),
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


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("network.port", 1, ("network", "port")),
        ("indexes.root/pypi.url", "x", ("indexes", "root/pypi", "url")),
        ("indexes.a.team/py.pi.url", "x", ("indexes", "a.team/py.pi", "url")),
        ("indexes.a.team/py.pi", {"type": "stage"}, ("indexes", "a.team/py.pi")),
        ("indexes.a.team/py.pi", None, ("indexes", "a.team/py.pi")),
        ("indexes.root/pypi.url", None, ("indexes", "root/pypi", "url")),
        ("indexes.root/dev.volatle", "yes", ("indexes", "root/dev", "volatle")),
        ("users.j.doe.email", "x", ("users", "j.doe", "email")),
        ("users.j.doe", {}, ("users", "j.doe")),
        ("image.env.A", "1", ("image", "env", "A")),
    ],
)
def test_names_in_keys_may_hold_dots(key: str, value: object, path: tuple[str, ...]) -> None:
    assert Override(key, value, "test").path == path


def test_set_wins_over_the_file_and_is_named_as_the_source_of_what_it_breaks(write) -> None:  # type: ignore[no-untyped-def]
    ref = write("users: {dev: }\nindexes: {root/dev: {bases: [root/pypi]}}\n")
    assert load(ref).profile.users["dev"].email == ""
    (told,) = problems(ref, overrides=[parse_set("indexes.root/dev.bases=[root/pipy]")])
    assert told.startswith("--set indexes.root/dev.bases: indexes.root/dev.bases: unknown index 'root/pipy'")


def test_the_parent_is_not_chosen_by_set() -> None:
    assert problems("default", overrides=[parse_set("extends=vpn")]) == [
        "--set extends: extends: unknown key (choose the profile with --profile)"
    ]


@given(st.text(max_size=60))
def test_any_set_is_an_override_or_a_problem(text: str) -> None:
    try:
        override = parse_set(text)
    except ProfileError:
        return
    try:
        load("default", overrides=[override])
    except ProfileError as error:
        assert error.message


words = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=30)


@given(words)
def test_a_quoted_text_stays_what_it_is(text: str) -> None:
    assert parse_value(json.dumps(text, ensure_ascii=False), name="x") == text
    if "\ufeff" not in text and not set(text) & set("\u0085\u2028\u2029\x7f"):
        quoted = text.replace("'", "''")
        assert parse_value(f"'{quoted}'", name="x") == text


@given(st.from_regex(r"[A-Za-z0-9_.+][A-Za-z0-9_.+:]{0,7}[A-Za-z0-9_.+]", fullmatch=True))
def test_a_plain_word_stays_what_it_is(word: str) -> None:
    value = parse(f"a: {word}\n".encode(), name="x").tree["a"]
    assert value == (None if word in ("null", "Null", "NULL") else word)


# A user's own profiles


def test_what_is_shipped_builds_on_what_is_shipped(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("extends: vpn\nnetwork: {port: 4000}\n")
    own = load("default", user_dir=tmp_path)
    assert (own.profile.network.mode, own.profile.network.port) == ("host", 4000)
    assert load("ci", user_dir=tmp_path).profile.network.mode == "auto"


def test_own_profiles_are_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYER_CONFIG_DIR", str(tmp_path))
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "team.yml").write_text("extends: default\ndescription: ours\nserver: {threads: 3}\n")
    assert load("team").profile.server.threads == 3
    assert {p.name: p.description for p in available()}["team"] == "ours"


def test_what_is_no_profile_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "directory.yaml").mkdir()
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "-option.yaml").write_text("engine: auto\n")
    (tmp_path / "notes.txt").write_text("engine: auto\n")
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    found = {p.name: p.description for p in available(tmp_path)}
    assert found.keys() - {p.name for p in available(tmp_path / "none")} == {"broken", "big"}
    assert (found["broken"], found["big"]) == ("", "")


def test_a_path_is_relative_to_the_file_that_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "base.yaml").write_text("extends: default\nserver:\n  threads: 5\n")
    (tmp_path / "a" / "b" / "team.yaml").write_text("extends: ../base.yaml\nserver: {pids: 9}\n")
    monkeypatch.chdir(tmp_path)
    loaded = load("a/b/team.yaml")
    assert (loaded.name, loaded.profile.server.threads, loaded.profile.server.pids) == ("team", 5, 9)
    assert [path.name for path in loaded.files] == ["team.yaml", "base.yaml", "default.yaml"]
    assert loaded.sources["server.threads"] == f"{tmp_path.resolve()}/a/base.yaml:3"
    assert loaded.sources["server.pids"] == "a/b/team.yaml:2"
    assert "server.web" not in loaded.sources


def test_an_empty_section_says_nothing(write) -> None:  # type: ignore[no-untyped-def]
    ref = write("extends: vpn\nnetwork:\n  # mode: bridge\nusers:\nindexes:\nclients: ~\n")
    assert load(ref).profile == load("vpn").profile


@given(st.text(st.characters(blacklist_characters="/"), max_size=30) | st.text(max_size=30))
def test_any_reference_is_a_profile_or_a_problem(ref: str) -> None:
    try:
        assert load(ref, user_dir=Path("/nonexistent")).files
    except ProfileError as error:
        assert error.message


keys = st.sampled_from(
    [*Profile.model_fields, "root/dev", "root/pypi", "dev", "port", "bases", "type", "extends", "env"]
)
leaves = st.none() | st.integers() | st.booleans() | st.sampled_from(["root/dev", "mirror", "stage", "default", "auto"])
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=15
)


@given(st.dictionaries(keys, anything, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_tree_is_a_profile_or_a_problem_with_its_place(tmp_path: Path, tree: dict[str, object]) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(tree))
    try:
        loaded = load(str(path))
    except ProfileError as error:
        assert str(path) in "".join((error.message, *error.details))
    else:
        assert set(loaded.sources) <= set(flatten(loaded.profile.model_dump(mode="json")))
