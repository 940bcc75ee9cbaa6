"""The rules of a mirror: what is held back, for what reason, and until when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("devpi_server")

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from deployer.protocol import parse_span
from deployer.server.guard.first_seen import firsts
from deployer.server.guard.rules import (
    InvalidRule,
    Malicious,
    Matcher,
    Rules,
    Wanted,
    brief,
    checked,
    iso,
    moment,
    sift,
    version_of,
)
from deployer.server.json_text import dumps

NOW = 1_780_000_000.0
DAY = 86_400.0


def file(name: str = "demo-1.0.tar.gz", age: float | None = 30 * DAY, sha256: str = "a" * 64) -> dict[str, Any]:
    found: dict[str, Any] = {"filename": name, "url": f"https://files.example.com/{name}", "hashes": {"sha256": sha256}}
    return found if age is None else found | {"upload-time": iso(NOW - age)}


def rule(config: dict[str, Any], found: dict[str, Any], first: dict[str, Any] | None = None, **more: Any) -> str | None:
    held = Rules.of(config, **more).about("demo", NOW).on(found, first)
    return None if held is None else held.rule


def test_without_a_rule_everything_is_allowed() -> None:
    assert not Rules.of({}).any
    assert rule({}, file(age=None)) is None


def test_a_young_file_is_held_back_until_its_time() -> None:
    held = Rules.of({"min_age": "7d"}).about("demo", NOW).on(file(age=DAY))
    assert held is not None
    assert (held.rule, held.until, held.date) == ("min_age", NOW + 6 * DAY, iso(NOW + 6 * DAY))
    assert held.line("demo-1.0.tar.gz", "root/pypi") == (
        f"demo-1.0.tar.gz is held back until {held.date} by min_age of root/pypi: "
        f"it was uploaded {iso(NOW - DAY)}, and 7d have not passed"
    )


@pytest.mark.parametrize(("age", "expected"), [(7 * DAY, None), (7 * DAY - 1, "min_age"), (-DAY, "min_age")])
def test_the_last_second_counts(age: float, expected: str | None) -> None:
    assert rule({"min_age": "7d"}, file(age=age)) == expected


@pytest.mark.parametrize(
    "text", [None, "", "yesterday", 17, "2026-13-01T00:00:00Z", "99999-01-01T00:00:00Z", "2026-01-01T99:00:00Z"]
)
def test_an_unknown_age_is_refused_unless_allowed(text: object) -> None:
    found = {**file(age=None), "upload-time": text}
    assert rule({"min_age": "7d"}, found) == "unknown_age"
    assert rule({"before": "2026-01-01"}, found) == "unknown_age"
    assert rule({"min_age": "7d", "unknown_age": "allow"}, found) is None
    assert rule({"before": "2026-01-01", "unknown_age": "allow"}, found) is None


@pytest.mark.parametrize("exempt", ["demo", "d*", "demo>=1.0", "Demo"])
def test_what_is_exempt_may_be_young_and_of_unknown_age(exempt: str) -> None:
    config = {"min_age": "7d", "min_age_exempt": [exempt]}
    assert rule(config, file(age=0)) is None
    assert rule(config, file(age=None)) is None
    assert rule(config | {"before": "2026-01-01"}, file(age=0)) == "before"


@pytest.mark.parametrize("exempt", ["demo<1", "demon", "dem", "other-*"])
def test_another_requirement_exempts_nothing(exempt: str) -> None:
    assert rule({"min_age": "7d", "min_age_exempt": [exempt]}, file(age=0)) == "min_age"


def test_nothing_after_a_date() -> None:
    config = {"before": "2026-01-01"}
    assert rule(config, file() | {"upload-time": "2025-12-31T23:59:59.999Z"}) is None
    assert rule(config, file() | {"upload-time": "2026-01-01T00:00:00Z"}) == "before"
    assert rule(config, file() | {"upload-time": "2026-01-01T00:30:00+01:00"}) is None
    assert Rules.of(config).about("demo", NOW).on(file(age=0)).until is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("deny", "held"),
    [("demo", True), ("d*o", True), ("demo<2", True), ("demo==1.0.0", True), ("demo>=2", False), ("dem", False)],
)
def test_deny(deny: str, held: bool) -> None:
    assert (rule({"deny": [deny]}, file()) == "deny") is held


def test_a_file_without_a_version_is_denied_and_not_allowed() -> None:
    odd = file("demo.tar.gz")
    assert rule({"deny": ["demo<2"]}, odd) == "deny"
    assert rule({"allow": ["demo<2"]}, odd) == "allow"
    assert rule({"allow": ["demo"]}, odd) is None
    assert rule({"deny": ["demo<2"]}, file("demo-one.two.zip")) == "deny"


def test_allow_is_a_complete_list() -> None:
    assert rule({"allow": ["other"]}, file()) == "allow"
    assert rule({"allow": ["demo<2"]}, file()) is None
    assert rule({"allow": ["demo>=2"]}, file()) == "allow"
    assert rule({"allow": ["demo"], "deny": ["demo"]}, file()) == "deny"


def test_malicious_releases() -> None:
    known = Malicious("1", {"demo": {"1": "MAL-1"}, "evil": {"*": "MAL-2"}})
    assert rule({}, file(), malicious=known) == "malicious"
    assert rule({}, file("demo-1.0.0-py3-none-any.whl"), malicious=known) == "malicious"
    assert rule({}, file("demo-1.1.tar.gz"), malicious=known) is None
    assert Rules.of({}, known).about("evil", NOW).on(file("evil-7.tar.gz")) is not None


def test_another_hash_than_at_first() -> None:
    first = file(sha256="b" * 64)
    assert rule({"min_age": "1d"}, file(), first) == "changed"
    assert rule({"min_age": "1d"}, first, first) is None
    assert rule({"min_age": "1d", "changed": "allow"}, file(), first) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_age", "seven"),
        ("min_age", "7"),
        ("min_age", 7),
        ("before", "soon"),
        ("unknown_age", "maybe"),
        ("changed", "yes"),
        ("deny", ["a b"]),
        ("deny", ["demo>>1"]),
        ("deny", ["demo; python_version<'3'"]),
        ("deny", ["demo[extra]"]),
        ("deny", ["demo @ https://example.com"]),
        ("allow", 7),
        ("allow", [7]),
        ("min_age_exempt", ["-"]),
    ],
)
def test_what_is_not_understood_is_refused(key: str, value: object) -> None:
    with pytest.raises(InvalidRule):
        checked(key, value)


def test_requirements_are_stored_in_one_form() -> None:
    assert checked("deny", ["Urllib_3 >= 1, < 2", "b", "b"]) == ["b", "urllib-3>=1,<2"]
    assert checked("deny", "b, urllib3>=1,<2") == ["b", "urllib3>=1,<2"]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("demo_tool-1.0-py3-none-any.whl", "1.0"),
        ("demo-tool-1.0.tar.gz", "1.0"),
        ("Demo.Tool-1.0.post1.zip", "1.0.post1"),
        ("demo_tool-1.0+local.1-1-py3-none-any.whl", "1.0+local.1"),
        ("demo_tool-1.0.egg", "1.0"),
        ("demo_tool-1.0-py2.7.egg", "1.0"),
        ("demo-tool.tar.gz", None),
        ("other-1.0.tar.gz", None),
    ],
)
def test_the_version_in_a_name(name: str, version: str | None) -> None:
    assert version_of(name, "demo-tool") == version


def test_a_page_is_sorted_and_says_when_the_next_file_comes() -> None:
    files = [
        file("demo-1.tar.gz"),
        file("demo-2.tar.gz", DAY),
        file("demo-3.tar.gz", 2 * DAY),
        file("demo-4.tar.gz", None),
    ]
    lines = b"".join(dumps(one) + b"\n" for one in files)
    found = sift(Rules.of({"min_age": "7d"}).about("demo", NOW), lines, {})
    assert found.lines == [dumps(files[0]) + b"\n"]
    assert [held.rule for _, held in found.held] == ["min_age", "min_age", "unknown_age"]
    assert found.until == NOW + 5 * DAY


def test_what_a_page_had_first() -> None:
    one, two, changed = file("demo-1.tar.gz"), file("demo-2.tar.gz"), file("demo-1.tar.gz", sha256="b" * 64)
    first = firsts({}, text(one, two), text(changed))
    assert {name: found["hashes"]["sha256"] for name, found in first.items()} == {
        "demo-1.tar.gz": "a" * 64,
        "demo-2.tar.gz": "a" * 64,
    }
    assert firsts({}, text(one), text(one, two)) == {}
    assert firsts(first, text(changed), text(one, two)) == {}  # it comes back, and is the same
    assert "demo-1.tar.gz" in firsts({"demo-1.tar.gz": one}, b"", text(changed))  # or as another one
    assert firsts({}, text(one), text(one | {"yanked": True})) == {}  # a yanked file is the same file
    many = [file(f"demo-{number}.tar.gz") for number in range(20)]
    others = [file(f"demo-{number}.tar.gz", sha256="b" * 64) for number in range(20)]
    assert len(firsts({}, text(*many), text(*others))) == 20


def text(*files: dict[str, Any]) -> bytes:
    return b"".join(dumps(one) + b"\n" for one in files)


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text())))
def test_what_decides_is_read_of_any_file_object(more: dict[str, Any]) -> None:
    found = {**more, **file()}
    assert brief(dumps(found)) == {key: found[key] for key in ("filename", "upload-time", "hashes")}


names = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,4})?", fullmatch=True)
versions = st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}((a|b|rc|\.post|\.dev)[0-9])?", fullmatch=True)
operators = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


@given(name=names, version=versions, operator=operators, bound=versions)
def test_a_requirement_means_what_packaging_says(name: str, version: str, operator: str, bound: str) -> None:
    wanted = Wanted.of(f"{name}{operator}{bound}")
    expected = SpecifierSet(f"{operator}{bound}").contains(Version(version), prereleases=True)
    assert wanted.has(version, unsure=False) is expected
    assert Wanted.of(str(wanted)) == wanted
    for filename in (f"{name}-{version}.tar.gz", f"{name.replace('-', '_')}-{version}-py3-none-any.whl"):
        assert version_of(filename, name) == version


@given(patterns=st.lists(st.from_regex(r"[a-z*][a-z0-9*]{0,4}", fullmatch=True), max_size=6), name=names)
def test_patterns_are_found_as_one_by_one(patterns: list[str], name: str) -> None:
    together = {wanted.pattern for wanted in Matcher(patterns).about(name)}
    assert together == {pattern for pattern in patterns if Matcher([pattern]).about(name)}


@given(st.floats(min_value=-1e9, max_value=1e11), st.integers(1, 90_000), st.booleans())
def test_time_only_lets_in_more(uploaded: float, span: int, fraction: bool) -> None:
    text = iso(uploaded).replace("Z", ".25Z") if fraction else iso(uploaded)
    rules = Rules.of({"min_age": f"{span}s"})
    found = {**file(age=None), "upload-time": text}
    exact = moment(text)
    assert exact is not None
    for now in (exact - 1, exact, exact + span - 0.5, exact + span, exact + span + 0.5):
        held = rules.about("demo", now).on(found)
        assert (held is None) is (now >= exact + span)


@given(st.text(max_size=12))
def test_spans_are_read_or_refused(text: str) -> None:
    try:
        assert parse_span(text) >= 0
    except ValueError:
        return


@given(st.dictionaries(st.sampled_from(["min_age", "deny", "allow", "before", "unknown_age"]), st.text(max_size=20)))
def test_any_attribute_is_read_or_refused(config: dict[str, Any]) -> None:
    try:
        rules = Rules.of(config)
    except InvalidRule:
        return
    rules.about("demo", NOW).on(file())
