"""Certificates of the tests' own: good ones, and those that nobody may take."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.engines import REQUIRED

_CONFIG = """\
[ca]
default_ca = own
[own]
database = {0}/index
new_certs_dir = {0}
certificate = {0}/ca.pem
private_key = {0}/ca.key
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
"""


class Authority:
    """Somebody who signs certificates; ``file`` is what one trusts to trust them."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            (pytest.fail if REQUIRED else pytest.skip)("certificates of the tests' own need openssl")
        directory.mkdir()
        self._directory = directory
        self.file = directory / "ca.pem"
        self._config = directory / "config"
        self._config.write_text(_CONFIG.format(directory))
        (directory / "index").touch()
        self._new("/CN=tests", "-x509", "-days", "2", key=directory / "ca.key", out=self.file)

    def context(
        self, address: str, *, age: timedelta = timedelta(hours=1), names: Sequence[str] = ()
    ) -> ssl.SSLContext:
        """What a server shows as the one at ``address``, or of all these ``names``: valid from ``age`` ago on, for two
        days."""
        key, asked, certificate, extensions = (
            self._directory / name for name in ("key", "asked", "cert", "extensions")
        )
        extensions.write_text(f"subjectAltName={','.join(f'DNS:{name}' for name in names) or f'IP:{address}'}\n")
        self._new(f"/CN={address}", key=key, out=asked)
        begin = datetime.now(UTC) - age
        dates = ("-startdate", f"{begin:%Y%m%d%H%M%SZ}", "-enddate", f"{begin + timedelta(days=2):%Y%m%d%H%M%SZ}")
        sign = ("openssl", "ca", "-batch", "-notext", "-config", str(self._config), "-extfile", str(extensions))
        _run(*sign, *dates, "-in", str(asked), "-out", str(certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    @staticmethod
    def _new(subject: str, *words: str, key: Path, out: Path) -> None:
        new = ("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject)
        _run(*new, *words, "-keyout", str(key), "-out", str(out))


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
