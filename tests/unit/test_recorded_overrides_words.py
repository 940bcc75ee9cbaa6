"""The words that bring a deployment back to what it was told are read as what was told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from deployer.commands import Overrides, overrides
from deployer.deployment.record import Applied, Overridden, write_applied
from deployer.operations.recorded import deployed, dropped_warning, spelt
from deployer.profile.load import load
from deployer.profile.load.files import reference
from deployer.profile.load.overrides import Override


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
    applied = Applied(
        profile_name="team", profile_ref=ref, engine="docker", simple_url="", overrides=[Overridden(**vars(kept))]
    )
    for named in ("default", "team.yaml", "./team.yaml", ref):
        assert deployed(named, applied) == (ref, (kept,)), named
    for other in ("other.yaml", "team", "/elsewhere/team.yaml", "~nobody-of-this-name/team.yaml"):
        assert deployed(other, applied) == (other, ()), other
    assert deployed("default", None) == ("default", ())


def test_words_name_a_deployment_that_is_not_the_usual_one() -> None:
    assert spelt("default", overrides(Overrides(port=4000)), name="team") == ("--name", "team", "--port", "4000")


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Remember an `up` of the profile `default` with these options."""
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path))

    def remember(options: Overrides) -> None:
        given = overrides(options)
        loaded = load("default", overrides=given)
        write_applied(
            "devpi",
            Applied(
                profile_name="default",
                profile_ref="default",
                engine="process",
                simple_url="",
                profile=loaded.profile.model_dump(mode="json"),
                overrides=[vars(one) for one in given],
            ),
        )

    return remember


def test_who_leaves_out_what_was_given_is_told_how_to_keep_it(recorded: Callable[..., None]) -> None:
    recorded(Overrides(port=4000, base_image="localhost/base:1", set=["indexes.root/dev.volatile=true"]))

    def told(options: Overrides) -> tuple[str, ...]:
        return dropped_warning(options.profile, options.name, load(options.profile, overrides=overrides(options)))

    (warning,) = told(Overrides(base_image="localhost/base:2"))
    assert "network.port" in warning
    assert "image.base," not in warning  # another one was given: that is meant
    assert warning.endswith(
        ": deployer up --set indexes.root/dev.volatile=true --port 4000 --base-image localhost/base:2"
    )
    assert told(Overrides(port=4000, base_image="x", set=["indexes.root/dev.volatile=false"])) == ()
    assert told(Overrides(profile="ci")) == ()  # another profile counts as it is written


def test_what_the_profile_says_by_itself_is_not_told(recorded: Callable[..., None]) -> None:
    recorded(Overrides(port=3141, set=["indexes.root/dev.volatile=false"]))
    assert dropped_warning("default", "devpi", load("default")) == ()
