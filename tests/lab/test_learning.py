"""Methods that learn while somebody watches: the same runs as without, paused, kept, stopped and continued."""

import errno
import threading
import time

import pytest
import torch

from ebbtide import InputError
from ebbtide.errors import DivergedError, StorageError
from ebbtide.kinds.runs import from_pretrained, train_recipe
from ebbtide.lab import learning
from ebbtide.lab.learning import Board, Learner, begun_with
from ebbtide.recipes import RECIPES
from ebbtide.signals import Interrupted

FIELDS = {"data": "two_moons", "points": 300, "batch": 32, "network": "mlp:width=16,depth=2"}


def recipe(steps):
    return RECIPES["flow"](steps=steps, **FIELDS)


def until(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def here(monkeypatch):
    """Workers in threads of this process, which take no seconds to begin; `stop` ends them as a signal would."""

    def stopped(number):
        raise Interrupted(number)

    monkeypatch.setattr(learning, "in_processes", lambda function, jobs: function(*jobs[0]))
    monkeypatch.setattr(learning._thread, "interrupt_main", stopped)
    monkeypatch.setattr(learning, "EVERY", 0.0)


@pytest.fixture
def made(here):
    """made(recipe, painted): a learner, closed at the end."""
    learners = []

    def make(recipe, painted=None):
        learners.append(Learner("learner-1", "flow", recipe, painted))
        return learners[-1]

    yield make
    for learner in learners:
        learner.close()
        assert not learner.home.exists()


def same(a, b):
    """The same weights."""
    ours, theirs = a.denoiser.state_dict(), b.denoiser.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_a_watched_run_is_paused_kept_and_the_same_as_one_alone(made, tmp_path):
    learner = made(recipe(200))
    assert (learner.state, learner.left) == ("starting", None)
    with pytest.raises(InputError, match="Pause the training first"):
        learner.keep(tmp_path / "kept")
    learner.go()
    until(lambda: learner.step > 3)
    assert learner.state == "training"
    learner.pause()
    until(lambda: (step := learner.step) == (time.sleep(0.1), learner.step)[1] and step > 3)
    step, now = learner.step, learner.now()
    assert (learner.state, now.step, learner.left) == ("paused", step, None)
    assert learner.look().samples.shape == (256, 2)
    kept = learner.keep(tmp_path / "below" / "kept")
    found = from_pretrained(kept)
    assert found.step == step < 200
    same(found, now)
    with pytest.raises(InputError, match="exists; keep the run in another folder"):
        learner.keep(kept)
    learner.go()
    until(lambda: learner.left is not None or learner.state == "done")
    until(lambda: learner.state == "done")
    assert learner.losses()[-1][0] == 200
    alone = train_recipe(recipe(200), tmp_path / "alone", progress=False)
    same(learner.now(), alone)
    assert learner.trained.tuned == alone.tuned
    live = alone.sample(**learning.LIVE["points"])
    torch.testing.assert_close(learner.look().samples, live)
    same(from_pretrained(learner.keep(tmp_path / "whole")), alone)
    learner.go()  # of a run that is done: nothing
    assert learner.state == "done"


def test_a_run_that_is_stopped_goes_on_where_it_was(made, tmp_path):
    learner = made(recipe(4000))
    learner.go()
    until(lambda: learner.step > 2)
    learner.stop(wait=30)
    assert learner.state == "stopped"
    step = learner.step
    learner.stop(wait=1)
    learner.go()
    until(lambda: learner.step != step or learner.state == "failed")
    assert learner.state == "training", learner.error


def test_painted_points_are_kept_beside_the_run(made, tmp_path, monkeypatch):
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    learner = made(RECIPES["flow"](steps=12, batch=16, network="mlp:width=8,depth=1", codec="standardise"), x)
    learner.go()
    until(lambda: learner.state in ("done", "failed"))
    assert learner.state == "done", learner.error
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched, pytest.raises(StorageError, match="No space left"):
        patched.setattr(learning, "save_points", lambda *_: (_ for _ in ()).throw(full))
        learner.keep(tmp_path / "kept")
    assert (learner.kept, list(tmp_path.iterdir())) == (None, [])  # not a half of it
    kept = learner.keep(tmp_path / "kept")
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]
    found = from_pretrained(kept, data=str(kept / learning.PAINTED))
    assert found.reading().data == str(kept / learning.PAINTED)


def test_what_goes_wrong_is_said_and_nothing_hangs(made, monkeypatch):
    def fail(*_, **__):
        raise DivergedError("At step 3 the loss was nan.")

    monkeypatch.setattr(learning, "train_recipe", fail)
    learner = made(recipe(10))
    learner.go()
    until(lambda: learner.state == "failed")
    assert learner.error == "At step 3 the loss was nan."
    assert learner.step == 0


def test_methods_begin_all_or_none(monkeypatch):
    with pytest.raises(InputError, match="steps must be at least 1"):
        begun_with(["flow"], "two_moons", None, 0, False)
    closed = []
    monkeypatch.setattr(Learner, "close", lambda self: closed.append(self.key))
    with pytest.raises(InputError, match="has no labels"):
        begun_with(["flow", "ddpm"], "swiss_roll", None, 5, True)
    with pytest.raises(KeyError):
        begun_with(["flow", "nothing"], "two_moons", None, 5, False, first=3)
    assert closed == ["learner-3"]


def test_a_board_is_one_file_in_both_processes(tmp_path):
    ours, theirs = Board(tmp_path, 3), Board(tmp_path, 3)
    theirs.weights[:] = [1, 2, 3]
    ours.order[0] = learning.PAUSE
    assert ours.weights.tolist() == [1, 2, 3]
    assert theirs.order.tolist() == [1, 0, 0, 0, 0]


@pytest.mark.slow
def test_a_worker_in_a_process_stops_when_asked_and_is_ended_where_it_can_t(tmp_path):
    """Signals are blocked in it, so it is asked over its board; while it is busy otherwise it is killed."""
    learner = Learner("learner-1", "flow", recipe(100_000), None)
    learner.go()
    until(lambda: learner.step > 10, 120)
    learner.stop(wait=60)
    assert learner.state == "stopped"
    assert 10 < learner.step < 100_000
    learner.go()
    until(lambda: learner.state == "training", 120)
    begun = time.monotonic()
    learner.close()
    assert time.monotonic() - begun < 30
    assert not any(thread.is_alive() for thread in threading.enumerate() if thread is learner._thread)
