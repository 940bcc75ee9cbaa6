"""ID tokens of CI jobs: which are valid, which keys are believed, and which rule admits a job."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

pytest.importorskip("jwt")

from cryptography.hazmat.primitives import serialization

from deployer.plan.container import oidc_rule
from deployer.profile.models import Oidc
from deployer.protocol import ExitCode, Refusal
from deployer.server.boot.run import oidc_rules
from deployer.server.oidc import keys
from deployer.server.oidc.keys import Keys, Unavailable, UnknownKey
from deployer.server.oidc.rules import Rule, Rules, matches
from deployer.server.oidc.verify import Exchanged, Invalid, Verifier
from tests.oidc_issuer import AUDIENCE, EC_KEY, JWKS, OTHER_KEY, RSA_KEY, SMALL_KEY, claims, signed

ISSUER = "https://ci.example.com/acme"
RULE: dict[str, Any] = {
    "issuer": ISSUER,
    "audience": AUDIENCE,
    "claims": {"repository": "acme/*"},
    "user": "ci",
    "permissions": ["read"],
    "indexes": ["root/dev"],
}


def rules(*changed: dict[str, Any]) -> Rules:
    """Rules of a profile, as the server reads them."""
    return Rules.of([oidc_rule(Oidc.model_validate({**RULE, **one})) for one in changed or ({},)])


class Issuer:
    """An issuer without a network: what it answers, and how often it was asked."""

    def __init__(self) -> None:
        self.now, self.asked = 0.0, 0
        self.jwks: Any = JWKS
        self.about: Any = {"issuer": ISSUER, "jwks_uri": "https://ci.example.com/keys"}
        self.up = True

    def fetch(self, url: str) -> Any:
        self.asked += 1
        if not self.up:
            raise Unavailable("down")
        return self.about if url == f"{ISSUER}/.well-known/openid-configuration" else self.jwks

    @property
    def keys(self) -> Keys:
        return Keys(ISSUER, self.fetch, lambda: self.now)


def verifier() -> Verifier:
    return Verifier(rules(), lambda issuer: Issuer().keys)


def public_pem() -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, form)


def with_shared_secret(secret: bytes) -> str:
    """A token signed with HS256, which no library signs with a public key any more."""
    import hmac

    def part(found: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(found).encode()).rstrip(b"=").decode()

    signing = f"{part({'alg': 'HS256', 'kid': 'rsa', 'typ': 'JWT'})}.{part(claims(ISSUER))}"
    digest = hmac.digest(secret, signing.encode(), "sha256")
    return f"{signing}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def test_a_signed_token_is_valid() -> None:
    assert verifier().claims(signed(claims(ISSUER)))["repository"] == "acme/app"
    assert verifier().claims(signed(claims(ISSUER), EC_KEY, "ES256", "ec"))["repository"] == "acme/app"
    assert verifier().claims(signed(claims(ISSUER, aud=["https://other.example.com", AUDIENCE])))


NOW = int(time.time())
HOSTILE = {
    "nothing": "",
    "no JWT": "a.b.c",
    "not ASCII": "é.b.c",
    "too long": f"{signed(claims(ISSUER))}{'x' * 9000}",
    "nested": base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.x",
    "alg none": signed(claims(ISSUER), None, "none"),
    "HS256 with the public key": with_shared_secret(public_pem()),
    "HS256 with a key of the set": signed(claims(ISSUER), b"secret" * 8, "HS256", "shared"),
    "another key": signed(claims(ISSUER), OTHER_KEY),
    "a small key": signed(claims(ISSUER), SMALL_KEY, "RS256", "small"),
    "a key that seals": signed(claims(ISSUER), RSA_KEY, "RS256", "sealing"),
    "an algorithm of another key": signed(claims(ISSUER), RSA_KEY, "RS256", "ec"),
    "an algorithm that is not allowed": signed(claims(ISSUER), RSA_KEY, "PS256"),
    "an unknown key": signed(claims(ISSUER), RSA_KEY, "RS256", "new"),
    "no name of a key": signed(claims(ISSUER), RSA_KEY, "RS256", None),
    "another issuer": signed(claims("https://evil.example.com")),
    "an issuer that is longer": signed(claims(f"{ISSUER}.evil.example.com")),
    "no issuer": signed(claims(ISSUER, iss=None)),
    "another audience": signed(claims(ISSUER, aud="https://other.example.com")),
    "no audience": signed(claims(ISSUER, aud=None)),
    "expired": signed(claims(ISSUER, exp=NOW - 120)),
    "no expiry": signed(claims(ISSUER, exp=None)),
    "an endless expiry": signed(claims(ISSUER, exp="soon")),
    "not valid yet": signed(claims(ISSUER, nbf=NOW + 7200)),
    "issued in the future": signed(claims(ISSUER, iat=NOW + 7200)),
    "no time of issue": signed(claims(ISSUER, iat=None)),
}


@pytest.mark.parametrize("token", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(Invalid) as caught:
        verifier().claims(token)
    assert not token or token not in str(caught.value)


def test_a_changed_token_is_refused() -> None:
    head, body, signature = signed(claims(ISSUER)).split(".")
    other = signed(claims(ISSUER, repository="acme/other")).split(".")[1]
    for parts in ((head, other, signature), (head, body, signature[::-1]), (head, body, "")):
        with pytest.raises(Invalid):
            verifier().claims(".".join(parts))


def test_keys_are_kept_and_asked_for_again_seldom() -> None:
    issuer = Issuer()
    found = issuer.keys
    assert found.find("rsa")["kty"] == "RSA"
    assert (found.find("ec")["kty"], issuer.asked) == ("EC", 2)
    for _ in range(10):
        with pytest.raises(UnknownKey):
            found.find("new")
    assert issuer.asked == 2
    issuer.now += keys.AGAIN
    issuer.jwks = {"keys": [{"kty": "RSA", "kid": "new"}]}
    assert (found.find("new")["kid"], issuer.asked) == ("new", 4)
    with pytest.raises(UnknownKey):
        found.find("rsa")  # the issuer has taken it back


def test_an_issuer_that_is_down_is_believed_for_a_while() -> None:
    issuer = Issuer()
    found = issuer.keys
    found.find("rsa")
    issuer.up, issuer.now = False, keys.FRESH
    assert found.find("rsa")
    with pytest.raises(Unavailable, match="down"):
        found.find("new")
    issuer.now = keys.STALE
    with pytest.raises(Unavailable, match="down"):
        found.find("rsa")
    issuer.up, issuer.now = True, keys.STALE + keys.AGAIN
    assert found.find("rsa")


@pytest.mark.parametrize(
    ("about", "jwks", "told"),
    [
        ({"issuer": "https://evil.example.com", "jwks_uri": "https://ci.example.com/keys"}, JWKS, "another issuer"),
        ([], JWKS, "another issuer"),
        ({"issuer": ISSUER, "jwks_uri": "https://evil.example.com/keys"}, JWKS, "elsewhere"),
        ({"issuer": ISSUER, "jwks_uri": "http://ci.example.com/keys"}, JWKS, "elsewhere"),
        ({"issuer": ISSUER, "jwks_uri": "https://ci.example.com:x/keys"}, JWKS, "elsewhere"),
        ({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}, JWKS, "elsewhere"),
        ({"issuer": ISSUER}, JWKS, "elsewhere"),
        (None, {"keys": [{"kid": str(number)} for number in range(101)]}, "no list"),
        (None, {"keys": "rsa"}, "no list"),
        (None, [], "no list"),
    ],
)
def test_hostile_answers_of_an_issuer(about: Any, jwks: Any, told: str) -> None:
    issuer = Issuer()
    issuer.about, issuer.jwks = (issuer.about if about is None else about), jwks
    with pytest.raises(Unavailable, match=told):
        issuer.keys.find("rsa")


@pytest.mark.parametrize(
    ("pattern", "word", "fits"),
    [
        ("acme/*", "acme/app", True),
        ("acme/*", "evil/acme/app", False),
        ("acme/app", "acme/app2", False),
        ("acme/app", "acme/app\n", False),
        ("acme.app", "acmexapp", False),
        ("refs/*/v*", "refs/tags/v1", True),
        ("*", "", True),
    ],
)
def test_a_pattern(pattern: str, word: str, fits: bool) -> None:
    assert matches(pattern, word) is fits


@pytest.mark.parametrize(
    ("changed", "admitted"),
    [
        ({}, True),
        ({"repository": "evil/app"}, False),
        ({"repository": None}, False),
        ({"repository": 7}, False),
        ({"repository": {"acme/x": 1}}, False),
        ({"repository": ["evil/app", "acme/app"]}, True),
        ({"aud": "https://other.example.com"}, False),
        ({"iss": "https://evil.example.com"}, False),
    ],
)
def test_a_rule_admits_jobs_by_their_claims(changed: dict[str, Any], admitted: bool) -> None:
    assert (rules().admitting(claims(ISSUER, **changed)) is not None) is admitted


def test_the_first_rule_counts_and_yes_is_a_word() -> None:
    known = rules({"claims": {"repository": "acme/*", "protected": "true"}, "permissions": ["upload"]}, {})
    assert [one.allowed for one in known.rules] == [("upload",), ("pkg_read",)]
    protected, other = claims(ISSUER, protected=True), claims(ISSUER, protected=False)
    assert [known.admitting(one) for one in (protected, other)] == list(known.rules)
    assert known.rules[0].seconds == 900


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"issuer": 1}', json.dumps({**RULE, "permissions": ["root"]})])
def test_an_invalid_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Rule.parse(text)


def test_a_server_does_not_start_with_an_invalid_rule() -> None:
    with pytest.raises(Refusal) as caught:
        oidc_rules([json.dumps({"issuer": ISSUER})])
    assert (caught.value.code, "--oidc: an invalid rule" in caught.value.message) == (ExitCode.USAGE, True)
    assert oidc_rules([]) == Rules()


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "http://ci.example.com"},
        {"issuer": "https://ci.example.com/?x"},
        {"issuer": ""},
        {"audience": ""},
        {"claims": {}},
        {"claims": {"repository": "*"}},
        {"user": "root"},
        {"permissions": []},
        {"permissions": ["write"]},
        {"indexes": []},
        {"lifetime": "30s"},
        {"lifetime": "2d"},
        {"lifetime": "0"},
    ],
)
def test_an_unsafe_rule_of_a_profile_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Oidc.model_validate({**RULE, **changed})


def test_a_token_is_exchanged_once() -> None:
    now = [0.0]
    seen = Exchanged(lambda: now[0])
    head, body, signature = signed(claims(ISSUER)).split(".")
    assert seen.first(f"{head}.{body}.{signature}", 300)
    assert not seen.first(f"{head}.{body}.{signature}", 300)
    assert not seen.first(f"{head}.{body}.another", 300)  # another spelling of the same
    assert seen.first(signed(claims(ISSUER)), 300)
