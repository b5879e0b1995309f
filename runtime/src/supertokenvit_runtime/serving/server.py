"""The server as a process: its socket, signals, draining, and reloading."""

import asyncio
import logging
import multiprocessing
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from ..errors import UsageError
from .app import make_app
from .hosting import Host, Source
from .metrics import Metrics
from .service import Service
from .settings import Settings

LOG = logging.getLogger("supertokenvit.serving")
WATCH = 0.5  # seconds between looks at the files
LAST = 0.5  # seconds in which what was sent to a connection that is still open is read, after the last one is accepted
BACKLOG = 2048
KEEP_ALIVE = 75  # seconds; longer than proxies keep connections, so that they close them and not the server


class Server(uvicorn.Server):
    """uvicorn's server, which ends in another way: it says that it will, takes requests for a while, then answers all.

    Args:
        service: What answers.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                make_app(service), loop="asyncio", http="h11", ws="none", lifespan="off", access_log=False,
                log_config=None, backlog=BACKLOG, server_header=False, timeout_keep_alive=KEEP_ALIVE,
            )
        )  # fmt: skip
        self.service = service
        self.loop: asyncio.AbstractEventLoop | None = None
        self.one_at_a_time = threading.Lock()
        self.background: set[asyncio.Task] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen, and to watch the files."""
        await super().startup(sockets)
        self.listening = sockets or []
        self.loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            self.loop.add_signal_handler(signal.SIGHUP, self.reload_all)
        self._begin(self._watch())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends after a while, in which other processes see that it will; at a second signal at once."""
        if self.service.draining or self.loop is None:  # at the second signal, or before anything could be asked
            self.should_exit = self.force_exit = True
            return
        self.service.draining = True
        self.loop.call_soon_threadsafe(lambda: self._begin(self._drain()))

    async def _drain(self) -> None:
        LOG.warning("ending: requests are taken for %g s more", self.service.settings.drain)
        await asyncio.sleep(self.service.settings.drain)
        self._accept_last()
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST)
        self.should_exit = True

    def _accept_last(self) -> None:
        """Accepts what the system has accepted for the server, or closing the socket would reset it."""
        for listening in self.listening:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # there are no more
                    break
                connection.setblocking(False)
                self._begin(self._take(connection))

    async def _take(self, connection: socket.socket) -> None:
        def protocol() -> asyncio.Protocol:
            made: type = self.config.http_protocol_class
            return made(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)

    def reload_all(self) -> None:
        """Loads every model anew."""
        for host in self.service.hosts.values():
            self._begin(self._reload(host))

    async def _reload(self, host: Host) -> None:
        await asyncio.to_thread(self._reload_alone, host)

    def _reload_alone(self, host: Host) -> None:
        with self.one_at_a_time:  # each takes memory for a second model
            host.reload()

    async def _watch(self) -> None:
        """Reloads a model when its file has changed, and has not changed any more since the last look."""
        seen = {host.name: host.fingerprint for host in self.service.hosts.values()}
        while True:
            await asyncio.sleep(WATCH)
            for host in self.service.hosts.values():
                found = host.source.fingerprint()
                if found is not None and found not in (host.fingerprint,) and found == seen[host.name]:
                    await self._reload(host)
                seen[host.name] = found

    def _begin(self, coroutine: "asyncio.coroutines.Coroutine[None, None, None]") -> None:  # type: ignore[name-defined]
        task = asyncio.get_running_loop().create_task(coroutine)
        self.background.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self.background.discard)


def serve(
    sources: Sequence[Source],
    settings: Settings,
    preload: Sequence[str] = ("supertokenvit_runtime.serving.preload",),
    told: Callable[[str], None] | None = None,
) -> None:
    """Serves models until a signal ends it, and all requests that were taken have been answered.

    Args:
        sources: The models; the first one answers where a request names none.
        settings: Limits and the address.
        preload: Modules that are imported before workers start, so that a lost worker is soon replaced.
        told: Hears the address when requests are taken.

    Raises:
        UserError: A model cannot be loaded, or two have one name.
        OSError: The address is taken.
    """
    multiprocessing.set_forkserver_preload(list(preload))
    metrics = Metrics()
    hosts: dict[str, Host] = {}
    listening = listen(settings.host, settings.port)
    service = None
    try:
        for source in sources:
            host = Host(source, settings, metrics)
            if host.name in hosts:
                host.close()
                raise UsageError(f"{source.path}: another model has the name {host.name}; export it with another")
            hosts[host.name] = host
        service = Service(hosts, settings, metrics)
        if told is not None:
            told(address_of(listening))
        Server(service).run([listening])
    finally:
        listening.close()
        for host in hosts.values():
            host.close()
        if service is not None:
            service.close()


def listen(host: str, port: int) -> socket.socket:
    """Opens the socket.

    Raises:
        UsageError: There is no such address.
        OSError: It is taken.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror}") from None
    # asyncio sends small pieces at once only where the socket says that it is TCP; else each answer waits 40 ms
    listening = socket.socket(family, kind, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there it would share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise OSError(f"{host} port {port}: {error.strerror}; choose another --port") from None
    return listening


def address_of(listening: socket.socket) -> str:
    """Returns the URL of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def log_to_stderr() -> None:
    """Lets log lines go to standard error, each with its time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("supertokenvit")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
