"""Who may reach the lab, and what its pages are sent."""

import http.client
import json
import signal
import time

import pytest
import torch
import uvicorn
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from ebbtide import InputError
from ebbtide.lab import server
from ebbtide.lab.learning import Look
from ebbtide.lab.server import listening, ours
from ebbtide.lab.session import Lab
from lab.serving import TOKEN, served, unpacked

pytestmark = pytest.mark.unchecked


@pytest.fixture(scope="module")
def port():
    with served(Lab()) as port:
        yield port


def got(port, path, host=None, **headers):
    """(status, headers, body) of a page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}", **headers})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def page(port, token=TOKEN, **options):
    return connect(f"ws://127.0.0.1:{port}/{token}/ws", max_size=None, **options)


def ask(socket, **message):
    socket.send(json.dumps(message))
    while True:
        header, arrays = unpacked(socket.recv(timeout=20))
        if header.get("id") == message["id"]:
            return header, arrays


def test_a_page_needs_the_token_and_a_host_of_ours(port):
    status, headers, body = got(port, f"/{TOKEN}/")
    assert status == 200
    assert b"<title>ebbtide lab</title>" in body
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    for name, kind in {"lab.js": "text/javascript", "draw.js": "text/javascript", "style.css": "text/css"}.items():
        status, headers, body = got(port, f"/{TOKEN}/{name}")
        assert (status, headers["content-type"].partition(";")[0], len(body) > 1000) == (200, kind, True)
    for path in ("/", "/wrong/", "/wrong/lab.js", f"/{TOKEN}x/", "/favicon.ico", f"/{TOKEN[:-1]}/"):
        status, _, body = got(port, path)
        assert (status, b"needs the token" in body) == (403, True), path
    for path in (f"/{TOKEN}/lab.py", f"/{TOKEN}/..%2fserver.py", f"/{TOKEN}/ws"):
        assert got(port, path)[0] in (403, 404), path
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        f"127.0.0.1.nip.io:{port}",
    ):
        assert got(port, f"/{TOKEN}/", host=host)[0] == 403, host
    for host in ("localhost", "[::1]"):
        assert got(port, f"/{TOKEN}/", host=f"{host}:{port}")[0] == 200
    assert got(port, f"/{TOKEN}/", Origin="http://evil.example")[0] == 403


def test_a_websocket_needs_the_token_and_an_origin_of_ours(port):
    for options in ({"token": "wrong"}, {"origin": "http://evil.example"}, {"origin": f"http://127.0.0.1:{port + 1}"}):
        with pytest.raises(InvalidStatus, match="403"):
            page(port, **options)
    with page(port, origin=f"http://127.0.0.1:{port}") as socket:
        assert ask(socket, id=1, do="about")[0]["runs"] == []


def test_other_machines_are_let_in_by_their_word_alone():
    assert ours("127.0.0.1", 80)("localhost:80")
    assert not ours("127.0.0.1", 80)("192.168.0.7:80")
    assert ours("192.168.0.7", 80)("192.168.0.7:80")
    assert ours("0.0.0.0", 80)("box.local:80")
    assert not ours("0.0.0.0", 80)("box.local:81")


def test_an_address_that_is_taken_is_a_sentence():
    with (
        listening("127.0.0.1", 0) as bound,
        pytest.raises(InputError, match="can't be listened on: Address already in use"),
    ):
        listening("127.0.0.1", bound.getsockname()[1])


def test_random_bytes_are_answered_and_the_socket_lives(port):
    with page(port) as socket:
        for message in (b"\x00\xff", "", "[" * 50_000, '{"id":3}', "\x00"):
            socket.send(message)
            assert "error" in unpacked(socket.recv(timeout=20))[0]
        assert ask(socket, id=2, do="about")[0]["do"] == "about"


class _Learning:
    """A method that learns a step at every look."""

    class recipe:
        kind, steps, data = "points", 50, "two_moons"

    key, name, error, left, kept, painted, state = "learner-1", "flow", "", 1.5, None, None, "training"

    def __init__(self):
        self.step = 0

    def look(self):
        self.step += 1
        return Look(self.step, torch.full((4, 2), float(self.step)), 0.001)

    def losses(self):
        return [(1, 0.5)]


class _Stepping(_Learning):
    @property
    def state(self):
        self.step += 1
        return "done" if self.step > 40 else "training"


def test_every_page_sees_what_learns_and_one_that_closes_harms_none(monkeypatch):
    monkeypatch.setattr(server, "PERIOD", 0.01)
    lab = Lab(learners=[_Stepping()])
    with served(lab) as port, page(port) as first:
        with page(port) as second:
            for socket in (first, second):
                header, arrays = unpacked(socket.recv(timeout=20))
                assert header["event"] == "learning"
                assert arrays["learner-1"].shape == (4, 2)
        seen = []
        while not seen or seen[-1]["event"] != "lab":
            seen.append(unpacked(first.recv(timeout=20))[0])
        assert any("losses" in header["learners"][0] for header in seen)
        steps = [header["learners"][0]["step"] for header in seen if header["event"] == "learning"]
        assert steps == sorted(steps)
        assert seen[-1]["learners"][0]["state"] == "done"
        assert ask(first, id=9, do="about")[0]["learners"][0]["name"] == "flow"


def test_nobody_is_shown_what_nobody_watches(monkeypatch):
    monkeypatch.setattr(server, "PERIOD", 0.001)
    learner = _Learning()
    with served(Lab(learners=[learner])):
        time.sleep(0.05)
    assert learner.step == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of Unix")
def test_a_terminal_that_closes_ends_the_server_as_ctrl_c_does():
    heard = []
    former = signal.signal(signal.SIGHUP, lambda number, frame: heard.append(number))
    own = server._Server(uvicorn.Config(None), lambda: None)
    try:
        with own.capture_signals():
            signal.raise_signal(signal.SIGHUP)
            assert (own.should_exit, heard) == (True, [])
        assert heard == [signal.SIGHUP]  # given to the command afterwards
    finally:
        signal.signal(signal.SIGHUP, former)
