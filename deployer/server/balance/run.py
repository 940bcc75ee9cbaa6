"""Run nginx as the balancer, and end when it ends: whoever started this process starts it again."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from deployer.protocol import ExitCode, Refusal
from deployer.server.balance.configuration import Balanced
from deployer.server.balance.watching import Member, Watching
from deployer.server.boot.handover import Kept
from deployer.server.listening import complete, parse_address, share
from deployer.server.nginx import certificate
from deployer.server.nginx.https import Https
from deployer.server.nginx.program import Nginx, NginxUnusable
from deployer.server.nginx.reverse_proxy import LARGEST_BODY, TIED, environment, open_files
from deployer.server.secret_files import Private, write_private

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def balance(options: argparse.Namespace) -> int:
    """Run until nginx ends, or a signal comes; the exit code."""
    os.umask(0o077)
    try:
        balanced = Balanced(
            listen=options.listen,
            members=tuple(options.member),
            primary=options.primary,
            tls=options.tls,
            wait=options.wait,
            mark=options.mark,
        )
        nginx = Nginx.find(None)
        pem = Path(options.certificate).absolute() if options.certificate else None
        if balanced.tls and pem is None:
            raise Refusal("HTTPS needs a certificate", hint="add --certificate FILE", code=ExitCode.USAGE)
        if pem is not None:
            certificate.wait(pem)
        return _run(nginx, balanced, Path(options.serverdir), pem)
    except Refusal as refusal:
        return _fail(refusal)
    except NginxUnusable as problem:
        why = f"a cluster on one host needs nginx as its balancer: {problem}"
        return _fail(Refusal(why, hint="install nginx", code=ExitCode.CONFLICT))


def _run(nginx: Nginx, balanced: Balanced, directory: Path, pem: Path | None) -> int:
    """``pem``: the certificate of HTTPS with its key; None without HTTPS."""
    config = directory / "nginx.conf"
    private = Private.of(directory)
    private.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def configure(known: Sequence[Member]) -> None:
        text = balanced.text(
            known,
            user="user root;" if os.geteuid() == 0 else "",
            workers=min(os.cpu_count() or 1, 2),
            connections=open_files() - 64,
            largest=LARGEST_BODY,
            https=Https.of(nginx, os.path.relpath(pem, directory), mark=certificate.mark(pem)) if pem else None,
        )
        write_private(config, text, durable=False)

    def read_again() -> None:
        while not (directory / "nginx.pid").exists():  # before that, the signal would end it
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGHUP)

    def changed(known: Sequence[Member]) -> None:
        configure(known)
        read_again()

    watching = Watching(balanced.members, changed)
    (directory / "nginx.pid").unlink(missing_ok=True)
    seen = certificate.mark(pem) if pem is not None else ""
    configure(watching.known)
    host, port = parse_address(balanced.listen)
    places = [(host, port)] + ([parse_address(balanced.tls)] if balanced.tls else [])
    write_private(private.running, f"{host} {port}\n", durable=False)  # for the image's health check
    kept = Kept.take()  # of a single server that becomes a cluster
    # The balancer that takes the place of this one listens before this one ends: nobody is refused meanwhile.
    listeners = complete(kept.sockets if kept else [], places, shared=True)
    for listener in listeners:
        share(listener)
    numbers = [listener.fileno() for listener in listeners]
    command = (nginx.path, *nginx.options, "-p", f"{directory}/", "-c", str(config))
    child = subprocess.Popen(
        (sys.executable, "-I", "-S", "-c", TIED, str(os.getpid()), *command),
        stdin=subprocess.DEVNULL,
        env=environment() | {"NGINX": "".join(f"{number};" for number in numbers)},
        pass_fds=numbers,
        process_group=0,
    )
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for listener in listeners:
            listener.close()
        child.send_signal(signal.SIGQUIT)  # requests under way are finished

    for number in _STOPS:
        signal.signal(number, stop)
    watching.start()
    if pem is not None:
        certificate.watch(pem, seen, read_again)
    code = child.wait()
    for listener in listeners:
        listener.close()
    with contextlib.suppress(ProcessLookupError):  # workers of a killed master
        os.killpg(child.pid, signal.SIGQUIT)
    return 0 if stopping else code or ExitCode.INTERNAL


def _fail(refusal: Refusal) -> int:
    sys.stderr.write(refusal.text)
    sys.stderr.flush()
    return refusal.code
