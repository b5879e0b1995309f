"""The server's socket, and how it ends."""

import asyncio
import signal
import socket

import pytest

from supertokenvit_runtime.errors import UsageError
from supertokenvit_runtime.serving.metrics import Metrics
from supertokenvit_runtime.serving.server import Server, address_of, listen
from supertokenvit_runtime.serving.service import Service
from supertokenvit_runtime.serving.settings import Settings


def test_what_the_system_accepted_before_the_socket_closes_is_answered():
    """Under load, up to 31 of a thousand requests were reset when the socket closed."""

    async def answers():
        service = Service({}, Settings(drain=0), Metrics())
        server, listening = Server(service), listen("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        waiting = [socket.create_connection(listening.getsockname(), timeout=20) for _ in range(20)]
        for connection in waiting:  # the loop has had no turn yet to accept them
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        await server._drain()
        found = [await asyncio.to_thread(connection.recv, 15) for connection in waiting]
        await serving
        for connection in waiting:
            connection.close()
        service.close()
        return found

    assert asyncio.run(answers()) == [b"HTTP/1.1 200 OK"] * 20


def test_a_second_signal_ends_at_once():
    async def seconds():
        service = Service({}, Settings(drain=3600), Metrics())
        server, listening = Server(service), listen("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        server.handle_exit(signal.SIGTERM, None)
        assert service.draining and not server.should_exit
        server.handle_exit(signal.SIGTERM, None)
        await asyncio.wait_for(serving, 10)
        service.close()

    asyncio.run(seconds())


def test_addresses_are_those_of_the_socket():
    with listen("127.0.0.1", 0) as listening:
        assert address_of(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert listening.proto == socket.IPPROTO_TCP  # asyncio looks at it before it sends small pieces at once
        with pytest.raises(OSError, match="choose another --port"):
            listen(*listening.getsockname())
    with pytest.raises(UsageError, match="--host no.such.host.invalid"):
        listen("no.such.host.invalid", 0)
