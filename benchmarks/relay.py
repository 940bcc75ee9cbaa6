"""A link between a client and an upstream on this machine: slow as told, and broken as told.

``python -m benchmarks.relay --port P --to PORT --rtt SECONDS --rate BYTES``: a process of its own, so that nothing
that is measured shares its interpreter. It reads words from standard input, a line each, and says each back once it is
so: ``pass``, ``hang`` (connections are taken and nothing ever comes back) and ``refuse`` (nobody listens, but the port
stays taken, so that it can pass again).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

CHUNK = 1 << 15
ROOT = Path(__file__).parents[1]


@dataclass
class Relay:
    """The relay as its user has it; ``rtt`` in seconds, ``rate`` in bytes a second, 0 for as fast as it goes."""

    port: int
    to: int
    rtt: float = 0.0
    rate: float = 0.0
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = ["--port", str(self.port), "--to", str(self.to), "--rtt", str(self.rtt), "--rate", str(self.rate)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.relay", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.become("pass")

    def become(self, word: str) -> None:
        """``pass``, ``hang`` or ``refuse``, from now on, for open connections as well."""
        assert self.process is not None
        told, heard = self._pipes()
        told.write(f"{word}\n")
        told.flush()
        if heard.readline().strip() != word:
            raise SystemExit(f"the relay on port {self.port} has ended")

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        return self.process.stdin, self.process.stdout

    def stop(self) -> None:
        if self.process is not None:
            for pipe in self._pipes():
                pipe.close()
            self.process.wait(10)
            self.process = None


class _Link:
    """The bytes that all connections share, each way its own bucket."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = 0.0

    async def take(self, count: int) -> None:
        """Wait until ``count`` more bytes have gone over the link."""
        if self._rate:
            self._free = max(self._free, time.monotonic()) + count / self._rate
            await asyncio.sleep(self._free - time.monotonic())


def _bound(port: int) -> socket.socket:
    """A socket that has the port together with those that were made the same way (socket(7), ``SO_REUSEADDR``)."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


class _Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._down = _Link(options.rate)
        self._open: set[asyncio.Task[None]] = set()
        self._hanging = False
        # Bound and never listening: whoever connects is refused, and nobody else can have the port.
        self._held = _bound(options.port)
        self._listening: asyncio.Server | None = None

    async def become(self, word: str) -> None:
        for task in self._open:
            task.cancel()
        self._hanging = word == "hang"
        if word == "refuse":
            if self._listening is not None:
                self._listening.close()
            self._listening = None
        elif self._listening is None:
            self._listening = await asyncio.start_server(self._accept, sock=_bound(self._options.port), backlog=512)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if self._hanging:
                await asyncio.Event().wait()
            await asyncio.sleep(self._options.rtt)  # what a handshake costs
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._options.to)
            pumps = [
                asyncio.ensure_future(self._pump(reader, far_writer, None)),
                asyncio.ensure_future(self._pump(far_reader, writer, self._down)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link | None) -> None:
        """Pass on what comes, half a round trip later; what is on its way does not hold up what follows."""
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def deliver() -> None:
            while True:
                due, data = await on_its_way.get()
                await asyncio.sleep(due - time.monotonic())
                writer.write(data)
                if not data:
                    return
                await writer.drain()

        delivering = asyncio.ensure_future(deliver())
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(CHUNK):
                    if link is not None:
                        await link.take(len(data))
                    await on_its_way.put((time.monotonic() + self._options.rtt / 2, data))
            await on_its_way.put((time.monotonic() + self._options.rtt / 2, b""))
            with contextlib.suppress(OSError):
                await delivering
        finally:
            delivering.cancel()


async def _serve(options: argparse.Namespace) -> None:
    server = _Server(options)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await server.become(line.strip())
        print(line.strip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pass connections on, slowly, or break them.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--rtt", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=0.0)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
