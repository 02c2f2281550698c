"""One thread: small tensors are fastest on one, and a second is slowed by whatever else runs.

Denormals are left alone: hypothesis refuses to draw floats where they are flushed.
"""

import torch

torch.set_num_threads(1)
