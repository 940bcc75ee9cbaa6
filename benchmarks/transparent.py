"""Transparent clients against those that have the index's address: a warm install, the tunnel's start and memory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.client import install
from benchmarks.deployment import Deployment, deployment
from benchmarks.index import GROUPS
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.processes import mentioning, peak
from deployer.certificates.authority import Authority

NUMBER = 16
ADDRESS, TRANSPARENT = "index address", "transparent"
START, MEMORY, MORE = "tunnel's start, ms", "tunnel's memory, MiB", "`exec` before the command, ms"
_HOST = "localhost"
_TUNNEL = "transparent.tunnel"
_CHUNK = 1 << 17
_TRUST = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def transparent(bench: Bench) -> list[Grid]:
    """One deployment whose upstream has TLS and a name; uv installs from it in both ways, in turns."""
    count = bench.index.count(*GROUPS)
    seconds = f"{count} wheels, s"
    grid = Grid(title="Transparent clients", columns=(seconds, START, MORE, MEMORY), base=ADDRESS, ratios=(seconds,))
    wanted = bench.index.wanted(*GROUPS)
    with _with_tls(bench) as upstream, deployment("process", upstream=upstream, command=bench.tools.deployer) as made:
        direct = f"http://127.0.0.1:{made.port}/root/dev/+simple/"
        install(bench, direct, wanted)  # so that everything is here, and the hosts of files are known
        others = mentioning(_TUNNEL)
        variables = _variables(made)
        tunnel = mentioning(_TUNNEL) - others

        def by_address() -> Mapping[str, float]:
            done = install(bench, direct, wanted)
            return {seconds: _well(done.seconds, done.failed, done.said), MORE: 1000 * _run(made, "true")}

        def through() -> Mapping[str, float]:
            done = install(bench, upstream, wanted, env=variables)
            row = {
                seconds: _well(done.seconds, done.failed, done.said),
                MORE: 1000 * _run(made, "true", "--transparent"),
            }
            return row | {START: 1000 * _started(bench.work, made), MEMORY: peak(tunnel)}

        cases = {ADDRESS: by_address, TRANSPARENT: through}
        for case in cases.values():
            for _ in range(2):
                case()  # the server sends a file by nginx from the third request on
        in_turns(grid, cases, rounds=3 * bench.scale.rounds)
    grid.notes.append(
        f"*{START}*: of its program, until it has said its port. *{MORE}*: of `deployer exec -- true`, all in all. "
        "Memory: at its worst moment, after the installs."
    )
    ratios = grid.ratio(TRANSPARENT, seconds)
    grid.goals = [
        Goal(number=NUMBER, what=f"warm install, {TRANSPARENT} / {ADDRESS}", values=ratios, limit=1.1),
        Goal(number=NUMBER, what="the tunnel's start", values=grid.of(TRANSPARENT, START), limit=50, unit=" ms"),
        Goal(
            number=NUMBER,
            what="the tunnel's memory",
            values=grid.of(TRANSPARENT, MEMORY),
            limit=30,
            worst=True,
            unit=" MiB",
        ),
    ]
    return [grid]


def _well(seconds: float, failed: int, said: str) -> float:
    if failed:
        raise SystemExit(said)
    return seconds


def _variables(made: Deployment) -> dict[str, str]:
    """The environment of a transparent shell that lives as long as this process."""
    told = json.loads(made.run(["env", "--transparent", "--json", "--pid", str(os.getpid())]))
    return {**dict(told["data"]["variables"]), "NO_PROXY": "", "no_proxy": ""}


def _run(made: Deployment, command: str, *options: str) -> float:
    started = time.perf_counter()
    made.run(["exec", *options, "--", command])
    return time.perf_counter() - started


def _started(work: Path, made: Deployment) -> float:
    """Seconds until a tunnel has said its port."""
    from deployer.clients.transparent.routes import Mirror
    from deployer.clients.transparent.tunnel import Plan
    from deployer.operations.transparent import PROGRAM

    (key,) = made.home.rglob("key.pem")
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    plan = Plan(
        server=f"http://127.0.0.1:{made.port}",
        name="root/dev",
        mirrors=(Mirror(view="/root/pypi/+canonical", url=f"https://{_HOST}/simple/", files=(_HOST,)),),
        certificate=str(key.with_name("chain.pem")),
        key=str(key),
        roots=str(key.with_name("ca.pem")),
        token="word",  # noqa: S106 - of a tunnel that serves nobody
        owner=owner.pid,
    )
    root = str(Path(__file__).parent.parent)
    try:
        started = time.perf_counter()
        words = [sys.executable, "-I", "-S", "-c", PROGRAM, root]
        subprocess.run(words, input=plan.encoded, capture_output=True, check=True, cwd=work)
        return time.perf_counter() - started
    finally:
        owner.kill()
        owner.wait()


# The upstream with TLS


@contextmanager
def _with_tls(bench: Bench) -> Iterator[str]:
    """The simple URL of the upstream with TLS at a name, trusted by what is started meanwhile."""
    now, valid = datetime.now(UTC), timedelta(days=1)
    ca = Authority.made([_HOST], now, title="benchmark", valid=valid)
    chain, key = ca.signed([_HOST], now, valid=valid)
    files = {name: bench.work / f"tls-{name}.pem" for name in ("ca", "chain", "key")}
    for name, text in (("ca", ca.certificate), ("chain", chain), ("key", key)):
        files[name].write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["chain"], files["key"])
    before = {name: os.environ.get(name) for name in _TRUST}
    os.environ |= dict.fromkeys(_TRUST, str(files["ca"]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(
            target=_serve, args=(listener, context, ("127.0.0.1", bench.upstream.server.port)), daemon=True
        ).start()
        try:
            yield f"https://{_HOST}:{listener.getsockname()[1]}/simple/"
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _serve(listener: socket.socket, context: ssl.SSLContext, to: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_one, args=(client, context, to), daemon=True).start()


def _one(client: socket.socket, context: ssl.SSLContext, to: tuple[str, int]) -> None:
    """One request after the other, each answered before the next is read: what clients of HTTP/1.1 do."""
    with (
        contextlib.suppress(OSError),
        context.wrap_socket(client, server_side=True) as tls,
        socket.create_connection(to) as other,
    ):
        other.settimeout(0.02)
        while data := tls.recv(_CHUNK):
            other.sendall(data)
            _answer(other, tls)


def _answer(other: socket.socket, tls: Any) -> None:
    answered = False
    while True:
        try:
            data = other.recv(_CHUNK)
        except TimeoutError:
            if answered:
                return
            continue
        if not data:
            raise OSError
        answered = True
        tls.sendall(data)
