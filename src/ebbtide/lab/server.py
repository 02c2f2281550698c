"""The server of the lab: its page, the page's scripts, and a websocket; for whoever has the token.

It listens on this machine alone unless asked otherwise. Beside the token, which is part of the address, a request needs
a Host of ours, and a websocket an Origin of ours: a page elsewhere whose name was made to lead here has neither.
"""

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..signals import handled
from .messages import packed
from .sampling import LabRun
from .session import Lab, answer, is_light

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError as missing:
    raise InputError("The lab needs starlette, uvicorn and websockets: pip install 'ebbtide[lab]'.") from missing

__all__ = ["LOOPBACK", "Live", "application", "listening", "serve"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STATIC = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
MOST_PAGES = 16  # open at a time
MOST_ASKED = 8  # messages of a page that are being answered
LARGEST = 2**21  # bytes of a message
SMALL = 1_000_000  # parameters of a network that a second thread hardly speeds up
PERIOD = 0.08  # seconds between two looks at what learns,
CHEAP = 0.03  # or, of a look that takes more CPU seconds than this,
SHARE = 8  # as many times these
LOSSES = 1.0  # seconds between two looks at the losses
_REFUSED = "This address needs the token that `ebbtide lab` printed: open the whole address that it shows.\n"


@dataclass(eq=False)
class _Page:
    """A page that is open: what waits to be sent to it."""

    events: list[bytes] = field(default_factory=list)
    latest: bytes | None = None
    """The newest look; a page that is slow misses those before it."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """Looks at what learns while a page is open, ten times a second, and shows them to every page.

    lab: which holds them.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab, self.pages = lab, set[_Page]()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ended = threading.Event()
        self._shown: dict[str, tuple[str, int]] = {}
        self._losses = 0.0

    def run(self) -> None:
        """Look until the server ends; the body of a thread."""
        while not self.ended.is_set():
            spent = 0.0
            if self.pages and self.lab.learners:
                with contextlib.suppress(OSError, RuntimeError, ValueError):  # what learns may just be forgotten
                    spent = self._look()
            self.ended.wait(max(0.0, PERIOD - spent) if spent < CHEAP else (SHARE - 1) * spent)

    def _look(self) -> float:
        """One look at every method whose weights are new; the CPU time it took."""
        learners, spent, arrays, done = list(self.lab.learners), 0.0, [], False
        for one in learners:
            before, state = self._shown.get(one.key, ("", -1)), (one.state, one.step)
            if before == state:
                continue
            done = done or (before[0] != "done" and state[0] == "done")
            if one.step != before[1] and one.step:
                look = one.look()
                spent += look.seconds
                arrays.append((one.key, _pixels(look.samples) if one.recipe.kind == "images" else look.samples.numpy()))
            self._shown[one.key] = state
        new = time.monotonic() - self._losses > LOSSES
        if arrays or done or new:
            told = self.lab.learning(losses=new)
            self._losses = time.monotonic() if new else self._losses
            self.publish(packed({"event": "learning", "learners": told}, arrays))
        if done:
            self.publish(packed(self.lab.about()), kept=True)
        return spent

    def publish(self, frame: bytes, kept: bool = False) -> None:
        """Send a frame to every page; kept: even if another follows before it is sent."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._publish, frame, kept)

    def _publish(self, frame: bytes, kept: bool) -> None:
        for page in self.pages:
            if kept:
                page.events.append(frame)
            else:
                page.latest = frame
            page.woken.set()


def _pixels(x: torch.Tensor) -> Any:
    from ..kinds.images.data import kept

    return kept(x)


def application(lab: Lab, token: str, hosts: Callable[[str], bool], live: Live) -> Starlette:
    """The ASGI application; hosts: whether a Host header, or the host of an Origin, is ours.

    lab: which answers messages. live: shows what learns.
    """
    work, light = (ThreadPoolExecutor(n, thread_name_prefix=f"lab-{n}") for n in (2, 1))

    def allowed(request: HTTPConnection) -> bool:
        given = str(request.path_params.get("token", ""))
        origin = request.headers.get("origin")
        ours = hosts(request.headers.get("host", ""))
        if origin is not None:
            scheme, _, host = origin.partition("://")
            ours = ours and scheme in ("http", "https") and hosts(host)
        return ours and hmac.compare_digest(given.encode(), token.encode())

    async def file(request: Request) -> Response:
        if not allowed(request):
            return PlainTextResponse(_REFUSED, 403)
        path = STATIC / (request.path_params.get("name") or "lab.html")
        if path.name not in SERVED:
            return PlainTextResponse("There is no such file.\n", 404)
        headers = HEADERS | {"Content-Security-Policy": _policy(request.headers["host"])}
        return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers=headers)

    async def talk(socket: WebSocket) -> None:
        if not allowed(socket) or len(live.pages) >= MOST_PAGES:
            await socket.close(1008)
            return
        await socket.accept()
        page, room = _Page(), asyncio.Semaphore(MOST_ASKED)
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        async def told() -> None:
            """Send what waits."""
            while True:
                await page.woken.wait()
                page.woken.clear()
                frames, page.events = page.events, []
                frames += [] if page.latest is None else [page.latest]
                page.latest = None
                for frame in frames:
                    await socket.send_bytes(frame)

        async def answered(message: str | bytes) -> None:
            """Send the answer to a message."""
            try:
                lane = light if is_light(message) else work
                await socket.send_bytes(await loop.run_in_executor(lane, answer, lab, message))
            except (WebSocketDisconnect, RuntimeError):  # the page is gone
                pass
            finally:
                room.release()

        def begun(task: asyncio.Task[None]) -> None:
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        live.pages.add(page)
        begun(asyncio.create_task(told()))
        try:
            while (event := await socket.receive())["type"] == "websocket.receive":
                await room.acquire()
                text = event.get("text")
                begun(asyncio.create_task(answered(text if text is not None else event.get("bytes") or b"")))
        finally:
            live.pages.discard(page)
            for task in tasks:
                task.cancel()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        live.loop = asyncio.get_running_loop()
        thread = threading.Thread(target=live.run, daemon=True)
        thread.start()
        yield
        live.ended.set()
        for lane in (work, light):
            lane.shutdown(wait=False, cancel_futures=True)

    routes = [
        WebSocketRoute("/{token}/ws", talk),
        Route("/{token}/", file),
        Route("/{token}/{name}", file),
        Route("/{token:path}", file),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


SERVED = ("lab.html", "lab.js", "draw.js", "style.css")
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the token is part of the address
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def _policy(host: str) -> str:
    """The page may load and reach this server, and nothing else."""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws://{host};"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is a free one. InputError where it can't. host: address to listen at."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would take the port from whoever has it
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(128)
    except (OSError, UnicodeError) as error:
        bound.close()
        why = getattr(error, "strerror", None) or error
        raise InputError(f"--host {host} --port {port} can't be listened on: {why}.") from error
    return bound


def ours(host: str, port: int) -> Callable[[str], bool]:
    """A check of Host headers: true for an address of this machine, or for the one that is listened on."""
    everywhere = host in ("0.0.0.0", "::")
    names = {f"[{name}]" if ":" in name else name for name in (*LOOPBACK, host)}

    def check(given: str) -> bool:
        name, _, number = given.rpartition(":") if not given.endswith("]") else (given, "", "80")
        return number == str(port) and (everywhere or name.lower() in names)

    return check


def serve(
    runs: list[LabRun], data: str, host: str, port: int, told: Callable[[str], None], browser: bool = True
) -> None:
    """Serve until stopped by a signal; told: called with the address.

    runs: open ones. host, port: to listen at; port 0 is a free one. browser: open one.
    """
    small = all(sum(p.numel() for p in run.trained.denoiser.parameters()) < SMALL for run in runs)
    if small:
        torch.set_num_threads(1)
    lab = Lab(data, {run.key: run for run in runs})
    with listening(host, port) as bound:
        token, number = secrets.token_urlsafe(24), bound.getsockname()[1]
        name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        address = f"http://{name}:{number}/{token}/"
        app = application(lab, token, ours(host, number), Live(lab))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, ws="websockets-sansio", ws_max_size=LARGEST,
            ws_per_message_deflate=False, timeout_graceful_shutdown=2,
        )  # fmt: skip
        server = _Server(config, lambda: _opened(address, told, browser))
        try:
            server.run(sockets=[bound])
        finally:
            lab.close()


def _opened(address: str, told: Callable[[str], None], browser: bool) -> None:
    told(address)
    if browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


class _Server(uvicorn.Server):
    """A server that calls back when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """End at any signal that stops a command: uvicorn leaves out that of a terminal that closes."""
        with super().capture_signals(), handled(self.handle_exit):
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.ready()
