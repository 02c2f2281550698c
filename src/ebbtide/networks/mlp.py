"""A residual multilayer perceptron: the network for points."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import InputError
from .clock import Fourier, Span, label_embedding, with_span
from .parts import check_sizes, zeroed

__all__ = ["MLP"]


class MLP(nn.Module):
    """h = W_x x + b + W_t φ(t) + E[label];  h ← h + act(W_k h + b_k);  ŷ = W_out act(h) + b_out.

    x, ŷ: (b, dim); t: (b,) or (1,); label: (b,). φ: Fourier; act: SiLU; residual layers as in He et al. 2016
    (arXiv:1512.03385, Section 3.1). The time and the label enter once, as addends: for points that is as good as
    entering at every block, and cheaper. So is narrow and deep: 6 × 64 beats 3 × 128 at half the cost. The last layer
    starts at zero, hence ŷ = 0.
    """

    def __init__(
        self,
        dim: int,
        classes: int = 0,
        *,
        width: int = 64,
        depth: int = 6,
        time_features: int = 16,
        spans: bool = False,
    ) -> None:
        super().__init__()
        check_sizes("mlp", dim=(dim, 1, 2**31), classes=(classes, 0, 2**31))
        check_sizes("mlp", width=(width, 1, 65536), depth=(depth, 0, 1024), time_features=(time_features, 2, 65536))
        if time_features % 2:
            raise InputError(f"mlp: time_features must be even; got {time_features}.")
        self.time_features = Fourier(time_features)
        self.from_x = nn.Linear(dim, width)
        self.from_time = nn.Linear(time_features, width, bias=False)
        self.spans = spans
        self.from_span = Span(width) if spans else None
        self.from_label = label_embedding(classes, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.activation = nn.SiLU()
        self.out = zeroed(nn.Linear(width, dim))

    def forward(
        self,
        x: Float[Tensor, " b dim"],
        t: Float[Tensor, " #b"],
        label: Int[Tensor, " b"] | None = None,
        span: Float[Tensor, " #b"] | None = None,
    ) -> Float[Tensor, " b dim"]:
        h = with_span(self.from_x(x) + self.from_time(self.time_features(t)), self.from_span, span)
        if self.from_label is not None:
            h = h + self.from_label(label)
        for block in self.blocks:
            h = h + self.activation(block(h))
        return self.out(self.activation(h))
