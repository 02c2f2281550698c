"""One thread: small tensors are fastest on one, and a second is slowed by whatever else runs.

Denormals are left alone: hypothesis refuses to draw floats where they are flushed.
"""

import signal

import jaxtyping
import pytest
import torch

torch.set_num_threads(1)
# What makes tensors is listed by torch on first use. Inside transformers' from_pretrained torch.linspace is another
# function, which must not end up on that list: torch.device("meta") would never again hold for the real one.
with torch.device("cpu"):
    torch.empty(())


def pytest_configure(config):
    """Ctrl-C ends the processes that tests start, even if a shell in the background ignores it for the tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Types and shapes are checked at every call, but for tests that are marked `unchecked`."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", before or item.get_closest_marker("unchecked") is not None)
    try:
        return (yield)
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
