"""Real servers of the places that backups are copied to: OpenSSH's SFTP, and the S3 API."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.engines import REQUIRED
from tests.plain_devpi import free_port

S3 = os.environ.get("DEPLOYER_TEST_S3", "")
"""versitygw, as .ci/s3 builds it."""
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
PATIENCE = 60.0


@dataclass(frozen=True)
class Place:
    """``repository`` and ``options`` as restic takes them; ``env``: variables that it needs."""

    repository: str
    options: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)


@contextmanager
def listening(words: Sequence[str], port: int, log: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(list(words), stdout=out, stderr=out, env=env)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


@contextmanager
def sftp(directory: Path) -> Iterator[Place]:
    """An OpenSSH server on loopback with keys of its own, and a client that knows no others."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    sshd, server = shutil.which("sshd", path=path), next(filter(os.path.exists, SFTP_SERVERS), "")
    if sshd is None or not server or shutil.which("ssh") is None:
        pytest.skip("OpenSSH is not installed (Debian: apt install openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the empty directory that Debian's sshd changes its root to
    directory.mkdir(mode=0o700)
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
        subprocess.run(words, check=True, capture_output=True)
    shutil.copy(directory / "user.pub", directory / "authorized")
    port = free_port()
    host = (directory / "host.pub").read_text().rsplit(" ", 1)[0]
    (directory / "known").write_text(f"[127.0.0.1]:{port} {host}\n")
    (directory / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/authorized\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
        f"Subsystem sftp {server}\n"
    )
    client = f"ssh -F none -i {directory}/user -o UserKnownHostsFile={directory}/known -o BatchMode=yes"
    user = pwd.getpwuid(os.geteuid()).pw_name
    with listening([sshd, "-D", "-e", "-f", f"{directory}/sshd_config"], port, directory / "log"):
        options = (f"sftp.command={client} -p {port} {user}@127.0.0.1 -s sftp",)
        yield Place(f"sftp:{user}@127.0.0.1:{directory}/kept", options)


@contextmanager
def s3(directory: Path) -> Iterator[Place]:
    """A server of the S3 API on loopback, which keeps objects in a directory."""
    if not S3:
        if "s3" in REQUIRED:
            pytest.fail("s3 is required here, and DEPLOYER_TEST_S3 names no versitygw")
        pytest.skip("no S3 server (.ci/s3 builds one; DEPLOYER_TEST_S3 names it)")
    for name in ("objects", "facts"):
        (directory / name).mkdir(parents=True)
    port = free_port()
    env = {"ROOT_ACCESS_KEY": "of-the-test", "ROOT_SECRET_KEY": "also-of-the-test", "PATH": os.environ["PATH"]}
    words = [S3, "--port", f"127.0.0.1:{port}", "--quiet", "posix", "--sidecar", f"{directory}/facts"]
    with listening([*words, f"{directory}/objects"], port, directory / "log", env):
        keys = {"AWS_ACCESS_KEY_ID": env["ROOT_ACCESS_KEY"], "AWS_SECRET_ACCESS_KEY": env["ROOT_SECRET_KEY"]}
        yield Place(f"s3:http://127.0.0.1:{port}/backups", env=keys)
