"""A decoder sharpened after its encoder is settled: where the squared error blurs, a critic asks for more."""

from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

from ..specs import require
from .critic import discern, misled
from .reconstruct import distance, restored

if TYPE_CHECKING:
    from ..core.denoiser import Denoiser

__all__ = ["Critic", "sharpen"]


class Critic(nn.Module):
    """The critic that is trained beside a decoder. step: the training's, of `steps`; set by the trainer.

    widths: of its maps.
    others: options of the loss that concern no critic.
    """

    def __init__(self, denoiser: "Denoiser", steps: int, *, widths: str, **others: Any) -> None:
        super().__init__()
        self.step, self.steps = 0, steps
        network: Any = denoiser.network
        self.score: Any = network.critic(widths)


def sharpen(
    denoiser: "Denoiser",
    x0: Float[Tensor, " b c h w"],
    noise: Float[Tensor, " b c h w"],
    *,
    judges: Critic,
    critic: float = 0.1,
    after: float = 0.1,
    smooth: float = 0.1,
    noise_std: float = 0.1,
    absolute: float = 1.0,
    widths: str = "32-64-128",
    **rest: Any,
) -> Float[Tensor, " b"]:
    """`reconstruct` of a decoder that learns to mislead a critic as well, as VQGAN's does; its encoder stands still.

    Esser et al. 2021, arXiv:2012.09841, Eq. 7. Flows in the encoder's latent stay valid.

    critic: weight of the adversarial term. after: the share of the training in which the critic learns alone. smooth: λ
    of `discern`. widths: of the critic's maps. noise_std, absolute: as in `reconstruct`. The critic's loss is added,
    and no gradient runs between it and the decoder but that of being misled.
    judges: the critic, as built for this loss. rest: other losses' inputs, which aren't used.
    """
    require("sharpen: critic", critic, 0)
    require("sharpen: after", after, 0, 1)
    require("sharpen: smooth", smooth, 0)
    made = restored(denoiser, x0, noise, noise_std)
    loss = distance(made, x0, absolute) + discern(judges.score, x0, made.detach(), smooth, noise)
    if judges.step < after * judges.steps:
        return loss
    return loss + critic * misled(judges, judges.score, x0, made)
