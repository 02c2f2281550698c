"""Networks: called as network(x, t, label=…), they return what their Denoiser's target asks for, shaped like x."""

from collections.abc import Callable
from functools import partial

from torch import nn

from .action_expert import ActionExpert
from .action_film import ActionFiLMUNet
from .action_transformer import ActionTransformer
from .action_unet import ActionUNet
from .autoencoder import Autoencoder
from .dit import DiT
from .mlp import MLP
from .paligemma import paligemma_expert
from .unet import UNet

__all__ = ["NETWORKS"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    # images: "unet" as it is told, the others for 8 × 8, for 28 × 28 or 32 × 32, for 64 × 64 to 160 × 160
    "unet": UNet,
    "unet-tiny": partial(UNet, width=32, multipliers="1-2", attention="0-1", blocks=1, dropout=0.0),
    "unet-small": partial(UNet, width=64, groups=16),
    "unet-flowers": partial(UNet, width=64, multipliers="1-2-4-6", attention="0-0-1-1", groups=16),
    "unet-ddpm-cifar10": partial(  # google/ddpm-cifar10-32 to the last option (Ho et al. 2020, arXiv:2006.11239)
        UNet, width=128, head=256, groups=32, eps=1e-6, conditioning="add", time="timestep", freq_shift=1,
        asymmetric=True,
    ),
    "dit": DiT,
    "dit-tiny": partial(DiT, width=96, depth=4, head=32),  # 8 × 8
    # DiT-S/2 and DiT-B/2 of Peebles & Xie 2023, arXiv:2212.09748, Table 1
    "dit-small": partial(DiT, width=384, depth=12),
    "dit-b2": partial(DiT, width=768, depth=12),
    "autoencoder": Autoencoder,  # of a codec of images, which makes no samples
    # chunks of a robot's actions
    "action_expert": ActionExpert,
    "pi0": paligemma_expert,
    "pi05": partial(paligemma_expert, variant="pi05"),
    "action_unet": ActionUNet,
    "action_unet-film": ActionFiLMUNet,
    # LeRobot's DiffusionPolicy by default
    "action_unet-lerobot": partial(ActionFiLMUNet, widths="512-1024-2048", resnet=18),
    "action_transformer": ActionTransformer,
}  # fmt: skip
