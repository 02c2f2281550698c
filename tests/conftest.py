"""One thread: small tensors are fastest on one, and a second is slowed by whatever else runs.

Denormals are left alone: hypothesis refuses to draw floats where they are flushed.
"""

import signal

import torch

torch.set_num_threads(1)


def pytest_configure(config):
    """Ctrl-C ends the processes that tests start, even if a shell in the background ignores it for the tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
