"""A link between two network namespaces that is slow and loses packets, as one between two sites is.

Both ends are TUN devices; a thread carries the packets. So the kernels at both ends see real loss and delay, and no
kernel module is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import threading
import time
from itertools import count
from pathlib import Path

from tests.network_lab import Namespace

_TUNSETIFF, _TUN, _NO_INFORMATION = 0x400454CA, 0x0001, 0x1000
_LARGEST = 65_536
NEAR, FAR = "10.88.0.1", "10.88.0.2"
"""The addresses of the two ends."""


def why_not() -> str:
    """Why such a link can't be made here; empty when it can."""
    if os.getuid() != 0:
        return "a network of its own needs root"
    if shutil.which("ip") is None:
        return "a network of its own needs ip"
    return "" if Path("/dev/net/tun").exists() else "this kernel has no /dev/net/tun"


class BadLink:
    """``delay``: seconds for one way. ``loss``: the share of packets that is lost. ``cut``: whether all of them are.

    ``carried``, ``lost``: how many packets were.
    """

    def __init__(self, near: Namespace, far: Namespace, *, delay: float = 0.05, loss: float = 0.01) -> None:
        self.delay, self.loss, self.cut = delay, loss, False
        self.carried = self.lost = 0
        self._chance = random.Random(23)
        self._ends = [_end(near, NEAR, FAR), _end(far, FAR, NEAR)]
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="link", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._waker, b"x")
        self._thread.join()
        for descriptor in (*self._ends, self._wake, self._waker):
            os.close(descriptor)

    def _carry(self) -> None:
        one, other = self._ends
        across = {one: other, other: one}
        waiting: list[tuple[float, int, int, bytes]] = []
        numbers = count()
        while True:
            timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            ready, _, _ = select.select([one, other, self._wake], [], [], timeout)
            if self._wake in ready:
                return
            now = time.monotonic()
            for end in ready:
                for packet in _read(end):
                    if self.cut or self._chance.random() < self.loss:
                        self.lost += 1
                    else:
                        heapq.heappush(waiting, (now + self.delay, next(numbers), across[end], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(waiting)
                if not self.cut:
                    self.carried += 1
                    with contextlib.suppress(OSError):  # the other end has gone
                        os.write(to, packet)


def _read(end: int) -> list[bytes]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(os.read(end, _LARGEST))
    return found


def _end(namespace: Namespace, address: str, peer: str) -> int:
    """The device of a namespace, as a descriptor that yields its packets."""
    with namespace.inside():
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", b"site0", _TUN | _NO_INFORMATION))
    namespace.run("ip", "addr", "add", address, "peer", peer, "dev", "site0")
    namespace.run("ip", "link", "set", "site0", "mtu", "1500", "up")
    return descriptor
