"""The words that bring a deployment back to what it was told are read as what was told."""

from __future__ import annotations

from itertools import pairwise

import pytest

from deployer.commands import Overrides, deployed, overrides, spelt
from deployer.loader.files import reference
from deployer.loader.overrides import Override
from deployer.state import Applied


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Overrides(), ()),
        (Overrides(port=0, expose=True), ("--port", "0", "--expose")),
        (Overrides(upstream="https://example.com/simple/"), ("--upstream", "https://example.com/simple/")),
        (Overrides(set=["server.threads=20"]), ("--set", "server.threads=20")),
        (Overrides(set=["users.dev={email: a b}"]), ("--set", 'users.dev={"email": "a b"}')),
        (Overrides(set=["network.outside_url="]), ("--set", 'network.outside_url=""')),
        (Overrides(set=["users.dev.title='a: [b'"]), ("--set", 'users.dev.title="a: [b"')),
    ],
)
def test_words(options: Overrides, words: tuple[str, ...]) -> None:
    given = overrides(options)
    assert spelt("default", given) == words
    again = [word for option, word in pairwise(words) if option == "--set"]
    assert [one.value for one in overrides(Overrides(set=again))] == [
        one.value for one in given if one.source.startswith("--set")
    ]


def test_a_profile_that_is_another_one_counts_as_it_is_written() -> None:
    kept = Override("server.threads", "20", "--set server.threads")
    ref = reference("team.yaml")
    applied = Applied(profile_name="team", profile_ref=ref, engine="docker", simple_url="", overrides=[vars(kept)])
    for named in ("default", "team.yaml", "./team.yaml", ref):
        assert deployed(named, applied) == (ref, (kept,)), named
    for other in ("other.yaml", "team", "/elsewhere/team.yaml", "~nobody-of-this-name/team.yaml"):
        assert deployed(other, applied) == (other, ()), other
    assert deployed("default", None) == ("default", ())
