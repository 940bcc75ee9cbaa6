"""The text of a pip.conf: ours are set, everything else is kept, and all of it comes back."""

from __future__ import annotations

import configparser
import io

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from deployer.clients.client import ClientSettings
from deployer.clients.pip import Pip, merging, unmerging
from deployer.clients.pip.grammar import normalize
from deployer.errors import ClientFileError

URL = "http://127.0.0.1:3141/root/dev/+simple/"
OURS = ClientSettings(index_url=URL, timeout=60)
REMOTE = ClientSettings(index_url="http://devpi.example.com:3141/root/dev/+simple/", timeout=5)


def merge(text: str, settings: ClientSettings) -> str:
    return merging.merge(text, Pip().values(settings))


def unmerge(text: str, *, original: str, settings: ClientSettings) -> str:
    return unmerging.unmerge(text, original=original, written=[Pip().values(settings)])[0]


def parsed(text: str) -> dict[str, dict[str, str]]:
    """As pip does it: ``RawConfigParser.read`` of a file, which translates every line end."""
    parser = configparser.RawConfigParser()
    parser.read_file(io.StringIO(text, newline=None))
    return {section: dict(parser.items(section)) for section in parser.sections()}


CASES = {
    "empty": ("", f"[global]\nindex-url = {URL}\ntimeout = 60\n"),
    "no section": ("# mine\n", f"# mine\n\n[global]\nindex-url = {URL}\ntimeout = 60\n"),
    "other section": (
        "[install]\nuser = true\n",
        f"[install]\nuser = true\n\n[global]\nindex-url = {URL}\ntimeout = 60\n",
    ),
    "value replaced in place": (
        "[global]\nindex-url = https://a.example.com/simple\ncert = /x\n",
        f"[global]\nindex-url = {URL}\ncert = /x\ntimeout = 60\n",
    ),
    "comments": (
        "[global]\n# why\ncert = /x ; is part of the value\n\n; end\n[install]\n",
        f"[global]\n# why\ncert = /x ; is part of the value\nindex-url = {URL}\ntimeout = 60\n\n; end\n[install]\n",
    ),
    "crlf": (
        "[global]\r\ntimeout = 3\r\n# c\r\n",
        f"[global]\r\ntimeout = 60\r\nindex-url = {URL}\r\n# c\r\n",
    ),
    "cr": ("[global]\rcert = /x\r", f"[global]\rcert = /x\rindex-url = {URL}\rtimeout = 60\r"),
    "mixed": (
        "[global]\r\ncert = /x\n[list]\rformat = columns\r",
        f"[global]\r\ncert = /x\nindex-url = {URL}\ntimeout = 60\n[list]\rformat = columns\r",
    ),
    "no final newline": ("[global]\ncert = /x", f"[global]\ncert = /x\nindex-url = {URL}\ntimeout = 60"),
    "no final newline, no section": ("# c", f"# c\n\n[global]\nindex-url = {URL}\ntimeout = 60"),
    "colon and case": (
        "[global]\nIndex_URL: https://a.example.com\nTimeout=3\n",
        f"[global]\nIndex_URL: {URL}\nTimeout=60\n",
    ),
    "aliases of pip": (
        "[global]\npypi-url = https://a.example.com\ndefault-timeout = 3\n",
        f"[global]\npypi-url = {URL}\ndefault-timeout = 60\n",
    ),
    "two spellings": (
        "[global]\nindex-url = a\nindex_url = b\n",
        f"[global]\nindex-url = {URL}\nindex_url = {URL}\ntimeout = 60\n",
    ),
    "continuation": (
        "[global]\nindex-url =\n  # which\n  https://a.example.com\n\ncert = /x\n",
        f"[global]\nindex-url ={URL}\n  # which\n\ncert = /x\ntimeout = 60\n",
    ),
    "indented keys": (
        "[global]\n  cert = /x\n  proxy = http://p.example.com\n[install]\n",
        f"[global]\n  cert = /x\n  proxy = http://p.example.com\n  index-url = {URL}\n  timeout = 60\n[install]\n",
    ),
    "indented next section": (
        "[global]\n  [install]\n  user = true\n",
        f"[global]\n  index-url = {URL}\n  timeout = 60\n  [install]\n  user = true\n",
    ),
    "percent": (
        "[global]\ncache-dir = /%x/%(y)s\n",
        f"[global]\ncache-dir = /%x/%(y)s\nindex-url = {URL}\ntimeout = 60\n",
    ),
    "ours in another section stays": (
        "[install]\nindex-url = a\n[global]\n",
        f"[install]\nindex-url = a\n[global]\nindex-url = {URL}\ntimeout = 60\n",
    ),
}


@pytest.mark.parametrize(("text", "wanted"), CASES.values(), ids=CASES.keys())
def test_merge_writes_exactly_this(text: str, wanted: str) -> None:
    assert merge(text, OURS) == wanted
    assert merge(wanted, OURS) == wanted
    assert unmerge(wanted, original=text, settings=OURS) == text


@pytest.mark.parametrize("text", [text for text, _ in CASES.values()], ids=CASES.keys())
def test_others_edits_stay_when_ours_go(text: str) -> None:
    changed = merge(text, OURS) + "\n[wheel]\nno-deps = true\n"
    back = unmerge(changed, original=text, settings=OURS)
    wanted = {section: dict(items) for section, items in parsed(text).items() if items}
    assert {section: items for section, items in parsed(back).items() if items} == wanted | {
        "wheel": {"no-deps": "true"}
    }


def test_a_value_that_somebody_chose_since_is_theirs() -> None:
    mine = "[global]\nindex-url = https://corp.example.com/simple\n"
    changed = merge(mine, OURS).replace(URL, "https://new.example.com/simple")
    text, kept = unmerging.unmerge(changed, original=mine, written=[Pip().values(OURS)])
    assert parsed(text) == {"global": {"index-url": "https://new.example.com/simple"}}
    assert kept == ("index-url",)


def test_undo_knows_every_value_that_was_ever_written() -> None:
    mine = "[global]\nindex-url = https://corp.example.com/simple\n"
    text = merge(merge(mine, OURS), REMOTE) + "# theirs\n"
    back, kept = unmerging.unmerge(text, original=mine, written=[Pip().values(OURS), Pip().values(REMOTE)])
    assert back == mine + "# theirs\n"
    assert kept == ()


@pytest.mark.parametrize(
    "text",
    [
        "index-url = x\n",
        "\ufeff[global]\ntimeout = 3\n",
        "[global]\na = 1\n[global]\nb = 2\n",
        "[global]\na = 1\nA = 2\n",
        "[global]\njust words\n",
        "[global]\n= 3\n",
        "[DEFAULT]\nextra-index-url = https://a.example.com\n",
    ],
    ids=["no section", "byte order mark", "section twice", "key twice", "no delimiter", "no key", "DEFAULT wakes up"],
)
def test_what_cant_be_changed_safely_is_refused(text: str) -> None:
    with pytest.raises(ClientFileError) as refused:
        merge(text, OURS)
    assert refused.value.hint


def test_a_refusal_never_quotes_the_line() -> None:
    with pytest.raises(ClientFileError) as refused:
        merge("[global]\n canary-secret\n", OURS)
    assert "canary" not in str(refused.value) and "line 2" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["http://x/\ntrusted-host = evil", "http://x/\r[install]", "http://x/ y", "", "http://x/\x00", "http://x/\u2028"],
)
def test_a_value_can_not_start_another_setting(url: str) -> None:
    with pytest.raises(ClientFileError):
        merge("[global]\n", ClientSettings(index_url=url, timeout=60))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://127.0.0.1:3141/x/", None),
        ("http://127.9.9.9:3141/x/", None),
        ("http://[::1]:3141/x/", None),
        ("http://localhost:3141/x/", None),
        ("http://LOCALHOST:3141/x/", None),
        ("https://devpi.example.com/x/", None),
        ("http://devpi.example.com:3141/x/", "devpi.example.com:3141"),
        ("http://me:secret@devpi.example.com/x/", "devpi.example.com"),
        ("http://192.0.2.7:3141/x/", "192.0.2.7:3141"),
        ("http://[2001:db8::7]:3141/x/", "[2001:db8::7]:3141"),
    ],
)
def test_a_host_is_trusted_only_where_pip_needs_it(url: str, host: str | None) -> None:
    assert parsed(merge("", ClientSettings(index_url=url, timeout=60)))["global"].get("trusted-host") == host


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("trusted-host = a.example.com\n", "trusted-host = devpi.example.com:3141 a.example.com\n"),
        ("trusted-host = devpi.example.com\n", "trusted-host = devpi.example.com\n"),
        (
            "trusted-host =\n  a.example.com\n  b.example.com\n",
            "trusted-host =devpi.example.com:3141\n  a.example.com\n  b.example.com\n",
        ),
    ],
)
def test_the_users_trusted_hosts_are_kept(before: str, after: str) -> None:
    text = f"[global]\nindex-url = x\ntimeout = 1\n{before}"
    merged = merge(text, REMOTE)
    assert merged.endswith(after)
    assert merge(merged, REMOTE) == merged
    assert unmerge(merged, original=text, settings=REMOTE) == text
    changed = unmerge(merged + "# theirs\n", original=text, settings=REMOTE)
    assert parsed(changed) == parsed(text) and changed.endswith("# theirs\n")


# Text that looks like a pip.conf often enough: its own words, and anything else.
names = st.sampled_from(
    ["index-url", "index_url", "Index-URL", "--index-url", "pypi-url", "timeout", "default_timeout", "trusted-host",
     "extra-index-url", "cert", "x"]
)  # fmt: skip
words = st.one_of(
    st.sampled_from(["", "60", URL, "a ; b", "# c", "%(x)s", "a.example.com", "[global]", "x = y"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
space = st.sampled_from(["", "", "", " ", "  ", "\t", "\x0b", "\xa0"])
line = st.one_of(
    st.builds("{}[{}]{}".format, space, st.sampled_from(["global", "install", "Global", "DEFAULT", "x"]), space),
    st.builds("{}{}{}{}{}{}".format, space, names, space, st.sampled_from(["=", ":"]), space, words),
    st.builds("{}{}{}".format, space, st.sampled_from(["#", ";"]), words),
    st.builds("{}{}".format, space, words),
)
end = st.sampled_from(["\n", "\n", "\r\n", "\r"])
texts = st.builds(
    lambda head, lines, last: head + "".join(a + b for a, b in lines) + last,
    st.sampled_from(["", "[global]\n", "[install]\r\n", "\ufeff"]),
    st.lists(st.tuples(line, end), max_size=8),
    st.one_of(st.just(""), line),
)
targets = st.sampled_from([OURS, REMOTE])


def readable(text: str) -> bool:
    try:
        parsed(text)
    except configparser.Error:
        return False
    return True


def without_ours(sections: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    ours = {"index-url", "pypi-url", "timeout", "default-timeout", "trusted-host"}
    return {
        section: {k: v for k, v in items.items() if section != "global" or normalize(k) not in ours}
        for section, items in sections.items()
    }


def own_words(text: str) -> dict[str, list[str]]:
    items = parsed(text).get("global", {}).items()
    return {k: v.split() for k, v in items if k not in without_ours({"global": dict(items)})["global"]}


@settings(max_examples=1500, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], deadline=None)
@given(texts, targets)
@example("[global]\n index-url = a\n# c\n b", OURS)
@example("[global]\ntrusted-host: \n a\r\n\r b", REMOTE)
@example("[global]\nindex-url=\n\n [global]", OURS)
def test_merge_of_any_text(text: str, wanted: ClientSettings) -> None:
    if not readable(text):
        with pytest.raises(ClientFileError):
            merge(text, wanted)
        return
    try:
        merged = merge(text, wanted)
    except ClientFileError as error:
        # The two kinds of text that can't be changed without changing more.
        assert "DEFAULT" in text or "trusted" in text, (text, error)
        return
    after = parsed(merged)
    assert without_ours({"global": {}} | parsed(text)) == without_ours(after)
    values = {normalize(k): v for k, v in after["global"].items()}
    assert {values.get("index-url"), values.get("pypi-url")} - {None} == {wanted.index_url}
    assert {values.get("timeout"), values.get("default-timeout")} - {None} == {str(wanted.timeout)}
    assert merge(merged, wanted) == merged
    assert unmerge(merged, original=text, settings=wanted) == text
    assert (merged[-1] in "\r\n") == (not text or text[-1] in "\r\n")


@settings(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], deadline=None)
@given(texts, targets, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8))
def test_every_line_of_others_is_kept(text: str, wanted: ClientSettings, comment: str) -> None:
    assume(readable(text) and "DEFAULT" not in text and "trusted" not in text)
    kept = [raw for raw in io.StringIO(text, newline="") if raw.strip()[:1] in ("#", ";")]
    merged = merge(text, wanted)
    left = list(io.StringIO(merged, newline=""))
    for raw in kept:
        assert any(raw.strip() == other.strip() for other in left)
    # An edit by somebody else, and then our keys out again: their edit and all other settings are still there.
    edited = f"# {comment}\n{merged}"
    back = unmerge(edited, original=text, settings=wanted)
    assert back.startswith(f"# {comment}")
    assert {s: i for s, i in without_ours(parsed(back)).items() if i} == {
        s: i for s, i in without_ours(parsed(text)).items() if i
    }
    # Blank lines inside a value that is ours may move behind it: the words are the same.
    assert own_words(back) == own_words(text)
