"""Networks: called as network(x, t, label=…), they return what their Denoiser's target asks for, shaped like x."""

from collections.abc import Callable

from torch import nn

from .mlp import MLP

NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": MLP}
