"""`mode=browser`: a page that opens the viewer's camera, sends its frames here, and draws what comes back.

`GET /?token=T` is the page. `GET /ws?token=T` is a WebSocket: a JPEG picture in each binary message, and for each one
text: `{"time": seconds since the connection, "faces": [...], "milliseconds": {...}}`, whose faces have the keys of
predictions.jsonl from "track" to "smoothed", and whose milliseconds are those of "decode", "detect", "network" and
"total" (with the wait for a free thread); or `{"error": "..."}`. With `&still=1` each picture stands for itself, as in
mode=image: its faces are not followed, and its time is null. Nothing that is sent here is kept.
"""

import asyncio
import errno
import io
import ipaddress
import json
import os
import secrets
import signal
import socket
import ssl
import time as clock
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web
from PIL import Image

from fer.errors import UserError
from fer.files import at_home
from fer.inference.analyzer import Analyzer
from fer.inference.pictures import BGRImage, to_picture
from fer.inference.sinks import face_fields
from fer.labels import emotion_color

PAGE = Path(__file__).with_name("page.html")
MOST_CONNECTIONS = 8  # at once; further ones are answered with 503
MOST_BYTES = 4 * 2**20  # of a message
MOST_PIXELS = 16 * 10**6  # of a picture: 48 MB when it is decoded
MOST_OPEN = 64  # connections, also of those that have not shown the token
PATIENCE_SECONDS = 10.0  # after which a connection must be a viewer's

VIEWERS = web.AppKey("viewers", set)

_WORKERS = 2  # one viewer's picture is decoded and searched while the network sees another's
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_SILENCE_SECONDS = 30.0  # after which a viewer is asked for a sign of life


class Server:
    """The listening socket, from before the network is loaded, so that a mistake in the address is told at once.

    Args:
        host: the address that is listened on.
        port: of it; 0 is any free one.
        names: further host names under which the page may be opened.
        cert: path of a certificate, for https; None: http.
        key: path of its private key.

    Attributes:
        token: what the page's address must have, a new one each time.
        is_local: whether only this computer reaches it.

    Raises:
        UserError: on entering: the address or the port cannot be had, or the certificate cannot be read.
    """

    def __init__(
        self, host: str, port: int, names: Sequence[str] = (), cert: str | None = None, key: str | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._names = tuple(names)
        self._files = (cert, key)
        self.token = secrets.token_urlsafe(16)
        self.is_local = _is_loopback(host)

    def __enter__(self) -> Self:
        self._tls = _tls(*self._files)
        self._socket = _listen(self._host, self._port)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def address(self) -> str:
        """Of the page, for a browser on this computer."""
        host = self._host
        with suppress(ValueError):
            if ipaddress.ip_address(host).is_unspecified:
                host = "::1" if ":" in host else "127.0.0.1"
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{host}:{self._socket.getsockname()[1]}/?token={self.token}"

    def run(self, new_analyzer: Callable[[], Analyzer], classes: Sequence[str]) -> None:
        """Serves until Ctrl-C, `kill` or the end of the terminal. Arguments as of `create_app`."""
        app = create_app(self.token, new_analyzer, classes, (self._host, *self._names))
        asyncio.run(self._serve(app))

    async def _serve(self, app: web.Application) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP, and no handlers in its loop
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                with suppress(NotImplementedError):
                    loop.add_signal_handler(number, stopped.set)
        # Addresses have the token in them, so no log of who asked for what.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
        await runner.setup()
        server = None
        try:
            server = await listen(runner, self._socket, self._tls)
            print(f"Open {self.address} in a browser; Ctrl-C ends.", flush=True)
            await stopped.wait()
        finally:
            if server is not None:
                server.close()
            await runner.cleanup()
        print("Ended.", flush=True)


async def listen(runner: web.AppRunner, listening: socket.socket, tls: ssl.SSLContext | None = None) -> asyncio.Server:
    """Lets a runner of `create_app`'s application serve a socket.

    aiohttp would wait for ever for a request from whoever connects and says nothing, and a thousand of these would use
    up all files that a process may have open.
    """
    made = runner.server
    assert made is not None
    loop = asyncio.get_running_loop()

    def accept() -> asyncio.BaseProtocol:
        if len(made.connections) >= MOST_OPEN:
            return _Refused()
        connection = made()

        def end_unless_viewer() -> None:
            if connection not in runner.app[VIEWERS] and connection.transport is not None:
                connection.transport.abort()

        loop.call_later(PATIENCE_SECONDS, end_unless_viewer)
        return connection

    patience = None if tls is None else PATIENCE_SECONDS
    return await loop.create_server(accept, sock=listening, ssl=tls, ssl_handshake_timeout=patience)


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def create_app(
    token: str,
    new_analyzer: Callable[[], Analyzer],
    classes: Sequence[str],
    hosts: Sequence[str] = (),
) -> web.Application:
    """The page and its WebSocket.

    Args:
        token: that every request must have.
        new_analyzer: is called for each connection; what it makes is called by one thread at a time.
        classes: the network's class names, in its order.
        hosts: names by which the server may be called, besides those of this computer.
    """
    known = {*_LOOPBACK, *(host.lower() for host in hosts)}
    page = _page(classes)
    connections: set[web.WebSocketResponse] = set()
    workers = ThreadPoolExecutor(_WORKERS, "faces")

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        # A page elsewhere could otherwise have this one's visitor connect (Origin), under a name that it lets point
        # here (Host).
        host = request.headers.get("Host", "").lower()
        if _hostname(host) not in known:
            name = host.encode(errors="replace").decode()  # what is sent need not be text
            raise web.HTTPForbidden(text=f"this server is not {name}; allow=[NAME] lets it be called so\n")
        origin = request.headers.get("Origin")  # browsers send it for every WebSocket, other programs need not
        if origin is not None and _netloc(origin) != host:
            raise web.HTTPForbidden(text="only this server's own page may connect\n")
        if not secrets.compare_digest(request.query.get("token", "").encode(), token.encode()):
            raise web.HTTPForbidden(text="the token is wrong or missing: open the address that infer.py has printed\n")
        return await handler(request)

    async def show(request: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        headers = {
            "Content-Security-Policy": (
                f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data: blob:; "
                f"media-src blob:; connect-src ws://{request.host} wss://{request.host}; base-uri 'none'; "
                "form-action 'none'; frame-ancestors 'none'"
            ),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return web.Response(text=page.replace("{{nonce}}", nonce), content_type="text/html", headers=headers)

    async def connect(request: web.Request) -> web.StreamResponse:
        if len(connections) >= MOST_CONNECTIONS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_CONNECTIONS} connections are open already\n")
        still = request.query.get("still") == "1"
        viewer = web.WebSocketResponse(max_msg_size=MOST_BYTES, heartbeat=_SILENCE_SECONDS, compress=False)
        connections.add(viewer)
        request.app[VIEWERS].add(request.protocol)
        try:
            await viewer.prepare(request)
            analyzer = new_analyzer()
            loop = asyncio.get_running_loop()
            connected = clock.perf_counter()
            # The next message is read when this one is answered; until then the sender's own buffers hold it.
            async for message in viewer:
                if message.type != WSMsgType.BINARY:
                    await viewer.send_json({"error": "a picture is a binary message, a JPEG file"})
                    continue
                came = clock.perf_counter()
                time = None if still else came - connected
                await viewer.send_json(await loop.run_in_executor(workers, answer, analyzer, message.data, time, came))
        except ConnectionError:  # the viewer left before the answer
            pass
        finally:
            connections.discard(viewer)
            request.app[VIEWERS].discard(request.protocol)
        return viewer

    async def close(_: web.Application) -> None:
        for viewer in list(connections):
            await viewer.close(code=WSCloseCode.GOING_AWAY, message=b"the server ends")
        workers.shutdown(cancel_futures=True)

    app = web.Application(middlewares=[guard])
    app[VIEWERS] = set()
    app.add_routes([web.get("/", show), web.get("/ws", connect)])
    app.on_shutdown.append(close)
    return app


def answer(analyzer: Analyzer, data: bytes, time: float | None, came: float) -> dict[str, Any]:
    """What is sent back for a message.

    Args:
        analyzer: of this connection.
        data: a JPEG file.
        time: seconds since the connection; None: a picture that stands for itself.
        came: when the message came, on the clock of `time.perf_counter`.
    """
    started = clock.perf_counter()
    try:
        picture = _decoded(data)
        decoded = clock.perf_counter()
        faces = analyzer(picture, time)
    except UserError as error:
        return {"error": str(error)}
    stages = analyzer.timings
    milliseconds = {
        "decode": 1000 * (decoded - started),
        "detect": stages["detect"] + stages["crop"],
        "network": stages["classify"],
        "total": 1000 * (clock.perf_counter() - came),
    }
    return {
        "time": None if time is None else round(time, 4),
        "faces": [face_fields(face) | {"uncertain": face.uncertain} for face in faces],
        "milliseconds": {name: round(value, 1) for name, value in milliseconds.items()},
    }


def _decoded(data: bytes) -> BGRImage:
    """The picture, uint8 (H, W, 3) in BGR, whose size was read from the file's header before anything else of it."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as file:
            width, height = file.size
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        raise UserError(f"{len(data)} bytes came that are no JPEG picture") from error
    if width * height > MOST_PIXELS:
        raise UserError(f"the picture of {width} x {height} pixels is too large; at most {MOST_PIXELS:,} are taken")
    return to_picture(data)


def _page(classes: Sequence[str]) -> str:
    colors = {name: "#{:02x}{:02x}{:02x}".format(*emotion_color(name)) for name in classes}
    settings = {"classes": list(classes), "colors": colors}
    # Class names come from a checkpoint, and none of them shall end the element that holds them.
    text = json.dumps(settings).replace("<", "\\u003c")
    return PAGE.read_text(encoding="utf-8").replace("{{settings}}", text)


def _netloc(origin: str) -> str | None:
    """Host and port of an Origin header; None where it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _hostname(host: str) -> str | None:
    """The name in a Host header, without port and brackets; None where it is no name with at most a port."""
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname if parts.port is None or parts.port else None
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except PermissionError as error:
        raise UserError(f"port={port} may not be opened by you; take one above 1023") from error
    except (OSError, ValueError) as error:  # ValueError of what cannot be a name: a..b
        if not isinstance(error, OSError) or isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"host={host} is no address of this computer; 127.0.0.1 is only it, 0.0.0.0 all") from error
        other = port + 1 if port < 65535 else port - 1
        raise UserError(
            f"port={port} cannot be had ({os.strerror(error.errno or 0)}); choose another, as port={other}"
        ) from error


def _tls(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    if cert is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password: a key that has one is a mistake to tell, not a question to ask for at the terminal.
        context.load_cert_chain(at_home(cert), at_home(key), password="")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cert={cert} and key={key} are no certificate and its private key (without a password) in PEM: {error}"
        ) from error
    return context
