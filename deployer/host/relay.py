"""A relay from the gateway of a bridge to a server on loopback, for the containers of that bridge only.

It listens at the gateway's address on two devices: the bridge, and loopback. A packet for that address that comes in by
any other device finds no listener, so no other host reaches it, whatever its routes are.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import threading
from collections.abc import Iterator

from deployer.errors import ConflictError

_SIOCGIFADDR = 0x8915
_BACKLOG = 128
_BLOCK = 1 << 18


def device_of(address: str) -> str:
    """The name of the interface that has the IPv4 ``address``; empty if none has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return ""


@contextlib.contextmanager
def relaying(gateway: str, device: str, *, port: int, to: tuple[str, int]) -> Iterator[int]:
    """Relay connections to ``gateway`` to the address ``to`` during the block; yields the port, ``port`` if it is free.

    Raises ConflictError when it can't listen there.
    """
    try:
        listeners = _listen(gateway, device, port)
    except OSError as error:
        raise ConflictError(
            f"can't listen at {gateway} on {device}: {error.strerror}", hint="add --network=host to the build"
        ) from None
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="relay", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(_serve(listeners, to), loop).result()
        yield listeners[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        for listener in listeners:
            listener.close()


def _listen(gateway: str, device: str, port: int) -> list[socket.socket]:
    """Listeners on both devices, of one port: ``port``, or a free one if it is taken."""
    made: list[socket.socket] = []
    try:
        for name in dict.fromkeys((device, "lo")):
            made.append(_bound(gateway, name, made[0].getsockname()[1] if made else port))
    except OSError:
        for listener in made:
            listener.close()
        if port:
            return _listen(gateway, device, 0)
        raise
    return made


def _bound(gateway: str, device: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        made.bind((gateway, port))
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


async def _serve(listeners: list[socket.socket], to: tuple[str, int]) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(*to, limit=_BLOCK)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass(reader, there_writer), _pass(there_reader, writer))
        for one in (writer, there_writer):
            one.close()

    for listener in listeners:
        await asyncio.start_server(connected, sock=listener, limit=_BLOCK)


async def _end() -> None:
    """End what is still passed on."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on one direction to its end; the other one may go on."""
    with contextlib.suppress(OSError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
        writer.write_eof()
