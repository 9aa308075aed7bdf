"""Ports that processes of one server share, and nobody else."""

from __future__ import annotations

import socket

import pytest

from polyroute.server.app import BindError
from polyroute.server.fronts.ports import Port
from polyroute.server.settings import Address


def listening(port: int, *, shared: bool) -> socket.socket:
    end = socket.socket()
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        end.bind(("127.0.0.1", port))
        end.listen()
    except OSError:
        end.close()
        raise
    return end


def test_a_free_port_is_kept_for_those_who_share_it() -> None:
    port = Port(Address("127.0.0.1", 0, "--grpc-address"))
    assert port.address.port > 0
    with listening(port.address.port, shared=True), listening(port.address.port, shared=True) as other:
        for _ in range(20):  # which take all connections: the kept one none
            socket.create_connection(other.getsockname()).close()
        with pytest.raises(OSError, match="in use"):
            listening(port.address.port, shared=False)
    port.close()
    listening(port.address.port, shared=False).close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_somebody_has_is_refused(shared: bool) -> None:
    with listening(0, shared=shared) as other:
        address = Address("127.0.0.1", other.getsockname()[1], "--grpc-address")
        with pytest.raises(BindError, match=rf"cannot listen on {address}: Address already in use \(--grpc-address\)"):
            Port(address)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(BindError, match=r"no\.such\.host\.invalid"):
        Port(Address("no.such.host.invalid", 0, "--http-address"))
