"""Whether an engine is on this host, by its address."""

from __future__ import annotations

from deployer.secrets import mask_url

_HERE = ("unix:", "npipe:", "/")
"""Starts of the addresses of sockets, which lead to this host."""


def far(address: str) -> str:
    """``address`` without its password if it leads through a network, else an empty string.

    Also for a loopback address: it may be the end of a tunnel, and an engine of this host has a socket.
    """
    return mask_url(address) if address and not address.startswith(_HERE) else ""
