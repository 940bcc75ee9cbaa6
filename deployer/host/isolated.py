"""The first program in a network of its own: ``python -m deployer.host.isolated SOCKET -- COMMAND...``.

It brings loopback up, listens there, passes the listening socket to the process behind ``SOCKET``, and becomes
``COMMAND``. Nothing else is reachable: the network has no route.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

from deployer.host.isolation import ADDRESS

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h


def main(words: list[str]) -> None:
    path, _, *command = words
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(control, _GET_FLAGS, asked))[1]
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh22x", b"lo", flags | _UP))
    if len(Path("/proc/net/route").read_text(encoding="ascii").splitlines()) > 1:
        raise SystemExit("this network has a route: it is not isolated")
    with socket.create_server(ADDRESS) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as outside:
        outside.connect(path)
        socket.send_fds(outside, [b"listening"], [listener.fileno()])
        outside.recv(16)  # it is served now
    os.execvp(command[0], command)  # noqa: S606 - a list of words, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
