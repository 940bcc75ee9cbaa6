"""A real LDAP directory: slapd as a process of the test's own, on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.engines import REQUIRED
from tests.plain_devpi import free_port

READER, READER_PASSWORD = "cn=reader,dc=example,dc=com", "s3arch-by-thi5"
PASSWORDS = {"alice": "al1ce-in-the-directory", "bob": "b0b-in-the-directory"}
PATIENCE = 60.0
_SCHEMAS = Path("/etc/ldap/schema")
_CONFIG = """\
include {schemas}/core.schema
include {schemas}/cosine.schema
include {schemas}/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {here}/pid
TLSCertificateFile {tls}/cert
TLSCertificateKeyFile {tls}/key
database mdb
maxsize 1048576
suffix "dc=example,dc=com"
directory {here}/db
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{reader}" read by * none
"""
_ENTRIES = """\
dn: dc=example,dc=com
objectClass: organization
objectClass: dcObject
o: Example
dc: example

dn: {reader}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: {reader_password}

dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=com
objectClass: organizationalUnit
ou: groups

dn: cn=developers,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: developers
member: uid=alice,ou=people,dc=example,dc=com
"""
_PERSON = """
dn: uid={name},ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: {name}
cn: {name}
sn: {name}
userPassword: {password}
"""


@dataclass
class Directory:
    """``alice`` is in the group ``developers``, ``bob`` is in none. Only the reader may search."""

    here: Path
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        path = os.pathsep.join((os.environ["PATH"], "/usr/sbin"))
        programs = {name: shutil.which(name, path=path) for name in ("slapd", "slapadd")}
        if not all(programs.values()) or not _SCHEMAS.is_dir():
            (pytest.fail if "slapd" in REQUIRED else pytest.skip)("slapd is not installed")
        self._slapd, slapadd = str(programs["slapd"]), str(programs["slapadd"])
        (self.here / "db").mkdir(parents=True)
        self.authority = Authority(self.here / "tls")
        self.authority.context("127.0.0.1")
        self._config = self.here / "slapd.conf"
        told = {"schemas": _SCHEMAS, "here": self.here, "tls": self.here / "tls", "reader": READER}
        self._config.write_text(_CONFIG.format(**told))
        entries = _ENTRIES.format(reader=READER, reader_password=READER_PASSWORD)
        entries += "".join(_PERSON.format(name=name, password=word) for name, word in PASSWORDS.items())
        words = (slapadd, "-f", str(self._config))
        subprocess.run(words, input=entries.encode(), check=True, capture_output=True, timeout=PATIENCE)

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    def start(self) -> None:
        at = f"{self.url} ldaps://127.0.0.1:{self.tls_port}"
        words = (self._slapd, "-d", "0", "-h", at, "-f", str(self._config))
        with (self.here / "log").open("ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not (_answers(self.port) and _answers(self.tls_port)):
            assert self.process.poll() is None, (self.here / "log").read_text(errors="replace")
            assert time.monotonic() < deadline, "slapd does not listen"
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    @contextlib.contextmanager
    def down(self, how: str) -> Iterator[None]:
        """Have no directory for a while. ``how``: connections are ``refused``; or taken and never answered
        (``silent``); or packets of new ones are dropped (``dark``), as by a firewall."""
        self.stop()
        with contextlib.ExitStack() as opened:
            if how != "refused":
                at = ("127.0.0.1", self.port)
                opened.enter_context(socket.create_server(at, backlog=128 if how == "silent" else 0))
                for _ in range(3 if how == "dark" else 0):  # the kernel drops packets once its queue is full
                    waiting = opened.enter_context(socket.socket())
                    waiting.setblocking(False)
                    waiting.connect_ex(at)
            try:
                yield
            finally:
                opened.close()
                self.start()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
