"""Signatures of bundles: OpenSSH makes and verifies the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deployer.bundle.signature import NAMESPACE, private_key, public_keys, sign, verify
from deployer.errors import UsageError, VerificationError

MESSAGE = b"0123  bundle.json\n"
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def keygen(*words: str, message: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *words], input=message, capture_output=True, check=False)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("keys")
    for name, kind, phrase in (
        ("a", "ed25519", ""),
        ("b", "ed25519", ""),
        ("rsa", "rsa", ""),
        ("locked", "ed25519", "x"),
    ):
        keygen("-q", "-t", kind, "-N", phrase, "-f", str(found / name))
    return found


def test_openssh_verifies_our_signature(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "sig").write_text(sign(MESSAGE, private_key(keys / "a")))
    (tmp_path / "allowed").write_text(f"me {(keys / 'a.pub').read_text()}")
    words = ("-Y", "verify", "-f", str(tmp_path / "allowed"), "-I", "me", "-n", NAMESPACE, "-s", str(tmp_path / "sig"))
    assert keygen(*words, message=MESSAGE).returncode == 0
    assert keygen(*words, message=MESSAGE + b"x").returncode != 0


def test_we_verify_openssh_signatures(keys: Path) -> None:
    made = keygen("-Y", "sign", "-f", str(keys / "a"), "-n", NAMESPACE, message=MESSAGE).stdout
    verify(MESSAGE, made, public_keys(keys / "a.pub"))


def test_any_of_several_keys_may_have_signed(keys: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.write_text(f"# keys\n{(keys / 'b.pub').read_text()}me {(keys / 'a.pub').read_text()}")
    verify(MESSAGE, sign(MESSAGE, private_key(keys / "a")).encode(), public_keys(both))


def test_invalid_signatures_are_refused(keys: Path) -> None:
    good = sign(MESSAGE, private_key(keys / "a"))
    public = public_keys(keys / "a.pub")
    verify(MESSAGE, good.encode(), public)
    other_use = keygen("-Y", "sign", "-f", str(keys / "a"), "-n", "file", message=MESSAGE).stdout
    of_rsa = keygen("-Y", "sign", "-f", str(keys / "rsa"), "-n", NAMESPACE, message=MESSAGE).stdout
    lines = good.splitlines()
    cases = {
        "another message": (MESSAGE + b"x", good.encode()),
        "another key": (MESSAGE, sign(MESSAGE, private_key(keys / "b")).encode()),
        "another purpose": (MESSAGE, other_use),
        "another kind of key": (MESSAGE, of_rsa),
        "cut": (MESSAGE, "\n".join([*lines[:2], lines[-1]]).encode()),
        "no Base64": (MESSAGE, good.replace(lines[1][:8], "!!!!!!!!").encode()),
        "changed": (MESSAGE, good.replace(lines[-2][:4], "AAAA").encode()),
        "nothing": (MESSAGE, b""),
        "not ASCII": (MESSAGE, "ä".encode()),
    }
    for case, (message, signature) in cases.items():
        with pytest.raises(VerificationError):
            verify(message, signature, public)
            pytest.fail(case)


def test_keys_of_other_kinds_are_refused_with_a_cure(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n")
    for path in (keys / "rsa", keys / "locked", keys / "a.pub", tmp_path / "text", tmp_path / "none"):
        with pytest.raises(UsageError) as caught:
            private_key(path)
        assert caught.value.hint
    for path in (keys / "rsa.pub", keys / "a", tmp_path / "text", tmp_path / "none"):
        with pytest.raises(UsageError) as caught:
            public_keys(path)
        assert caught.value.hint
