"""Who has a port, for an engine that does not look."""

from __future__ import annotations

import socket

import pytest

from deployer.engines.ports import holder_of
from deployer.spec import Port
from tests.plain_devpi import free_port

RUNNING = "web 127.0.0.1:80->8080/tcp, 0.0.0.0:8443->443/tcp\nquiet \nsix [::1]:3141->3141/tcp\n"


@pytest.mark.parametrize(
    ("host", "number", "holder"),
    [
        ("127.0.0.1", 80, "web"),
        ("0.0.0.0", 80, "web"),
        ("127.0.0.1", 8443, "web"),
        ("::1", 3141, "six"),
    ],
)
def test_the_container_that_publishes_it(host: str, number: int, holder: str) -> None:
    assert holder_of(Port(host_ip=host, host_port=number, container_port=1), RUNNING) == holder


@pytest.mark.parametrize("number", [9000, 9001, 9002])
def test_ports_that_follow_each_other_are_shown_as_one(number: int) -> None:
    running = "many 0.0.0.0:9000-9002->80-82/tcp\n"
    assert holder_of(Port(host_ip="127.0.0.1", host_port=number, container_port=1), running) == "many"


def test_a_port_of_udp_is_another_one() -> None:
    number = free_port()
    running = f"dns 0.0.0.0:{number}->53/udp\n"
    assert holder_of(Port(host_ip="127.0.0.1", host_port=number, container_port=1), running) == ""


def test_another_address_or_another_port_is_free() -> None:
    number = free_port()
    running = f"web 127.0.0.2:{number}->8080/tcp\n"
    assert holder_of(Port(host_ip="127.0.0.1", host_port=number, container_port=1), running) == ""


def test_a_program_that_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = Port(host_ip="127.0.0.1", host_port=listener.getsockname()[1], container_port=1)
        assert holder_of(port, "") == "another program"
