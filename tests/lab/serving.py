"""A server of the lab in a thread, and the frames that it sends."""

import contextlib
import json
import threading
import time

import numpy as np
import uvicorn

from ebbtide.lab.server import Live, application, listening, ours

TOKEN = "right-token"


def unpacked(frame):
    """A frame's header, and its arrays by name."""
    length = int.from_bytes(frame[:4], "little")
    header = json.loads(frame[4 : 4 + length])
    arrays = {}
    for one in header.get("arrays", ()):
        assert one["at"] % 4 == length % 4 == 0
        size = int(np.prod(one["shape"]))
        arrays[one["name"]] = np.frombuffer(frame, one["type"], size, 4 + length + one["at"]).reshape(one["shape"])
    return header, arrays


@contextlib.contextmanager
def served(lab):
    """The port of a server of this lab."""
    with listening("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        live = Live(lab)
        app = application(lab, TOKEN, ours("127.0.0.1", port), live)
        config = uvicorn.Config(app, log_level="error", ws="websockets-sansio", timeout_graceful_shutdown=1)
        own = uvicorn.Server(config)
        thread = threading.Thread(target=own.run, kwargs={"sockets": [bound]})
        thread.start()
        while not own.started:
            time.sleep(0.005)
        try:
            yield port
        finally:
            own.should_exit = True
            thread.join()
