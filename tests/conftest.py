"""One thread: small tensors are fastest on one, and a second is slowed by whatever else runs.

Denormals are left alone: hypothesis refuses to draw floats where they are flushed.
"""

import gc
import shutil
import signal

import jaxtyping
import pytest
import torch

from cells import begin_test, checks, jaxtyped

jaxtyping.jaxtyped = jaxtyped
torch.set_num_threads(1)
# What makes tensors is listed by torch on first use. Inside transformers' from_pretrained torch.linspace is another
# function, which must not end up on that list: torch.device("meta") would never again hold for the real one.
with torch.device("cpu"):
    torch.empty(())


def pytest_configure(config):
    """Ctrl-C ends the processes that tests start, even if a shell in the background ignores it for the tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Types and shapes are checked in the first case of each test, or in all of those that are marked `checked`.

    A command and a benchmark call what other folders check; their own tests are without.
    """
    seen = set()
    for item in items:
        name = item.nodeid.partition("[")[0]
        if (name in seen or name.startswith(("tests/cli/", "tests/benchmarks/"))) and not item.get_closest_marker(
            "checked"
        ):
            item.add_marker("unchecked")
        seen.add(name)


def pytest_collection_finish():
    """What is imported by now stays, so the garbage collector needn't go through it again and again, and seldom."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="module")
def chromium():
    """Chromium or Chrome, without a window; the test is skipped where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("needs Chromium or Chrome: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session", autouse=True)
def kernels():
    """The U-Net's, from the user's cache: a test with a cache of its own would compile them anew, for two seconds."""
    from ebbtide.networks import fused

    fused.native()


@pytest.fixture(scope="module", autouse=True)
def few(request):
    """Commands and kinds judge tables by few trees, fit solvers in few steps, and draw figures of few pixels and
    points, films of six frames and, while they train, samples of two steps. Other folders have as many as users do.
    """
    if not request.node.nodeid.startswith(("tests/cli/", "tests/kinds/")):
        yield
        return
    from ebbtide.kinds import KINDS
    from plots.material import small

    with pytest.MonkeyPatch.context() as patch:
        for name, most in {
            "metrics.tables.trees.FOLDS": 2, "metrics.tables.trees.ITERATIONS": 5, "kinds.points.study.WALK_POINTS": 60,
            "training.solver.MOST_JOINT": 4,
        }.items():  # fmt: skip
            patch.setattr(f"ebbtide.{name}", most)
        small(patch)
        for kind in ("points", "images"):
            patch.setitem(KINDS[kind].snapshot, "steps", 2)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A check takes as long as the small tensors it is made of: it is left out where the test is marked `unchecked`,
    and after the first calls where it isn't marked `checked`.
    """
    begin_test(every=item.get_closest_marker("checked") is not None)
    with checks(off=item.get_closest_marker("unchecked") is not None):
        try:
            return (yield)
        finally:
            torch.set_flush_denormal(False)  # which a command sets in the process that it has for itself
