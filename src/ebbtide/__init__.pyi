"""The names of `ebbtide` with their types, for editors and type checkers; __init__.py loads each on first use."""

from .core.couplings import COUPLINGS as COUPLINGS
from .core.denoiser import Denoiser as Denoiser, DenoiserLike as DenoiserLike
from .core.guidance import Autoguidance as Autoguidance, ClassifierFree as ClassifierFree
from .core.paths import (
    DDPM as DDPM,
    PATHS as PATHS,
    VE as VE,
    VP as VP,
    Bridge as Bridge,
    Cosine as Cosine,
    Linear as Linear,
    Path as Path,
)
from .core.randomness import Draws as Draws
from .core.targets import TARGETS as TARGETS, Estimate as Estimate
from .core.times import GRIDS as GRIDS, SPANS as SPANS, TIMES as TIMES
from .data import DATASETS as DATASETS
from .errors import (
    CertificationError as CertificationError,
    DivergedError as DivergedError,
    EbbtideError as EbbtideError,
    InputError as InputError,
    StorageError as StorageError,
)
from .exact.certify import certify as certify
from .exact.encoding import encode as encode
from .exact.likelihood import likelihood as likelihood
from .exact.oracle import gaussian as gaussian, mixture as mixture
from .exact.tune import tune as tune
from .interop.diffusers import from_diffusers as from_diffusers
from .interop.hub import push_to_hub as push_to_hub
from .interop.unet import load_unet as load_unet, save_unet as save_unet
from .inverse.posterior import DPS as DPS, TMPD as TMPD, PiGDM as PiGDM
from .kinds import KINDS as KINDS
from .kinds.compare import compare as compare
from .kinds.distil import distill as distill
from .kinds.fit import fit as fit
from .kinds.robots.driving import policy as policy
from .kinds.runs import from_pretrained as from_pretrained
from .losses import LOSSES as LOSSES
from .metrics import IMAGE_METRICS as IMAGE_METRICS, METRICS as METRICS
from .networks import MLP as MLP, NETWORKS as NETWORKS, DiT as DiT, UNet as UNet
from .plots.study import Comparison as Comparison
from .recipes import (
    RECIPES as RECIPES,
    ImageRecipe as ImageRecipe,
    PointRecipe as PointRecipe,
    Recipe as Recipe,
    RobotRecipe as RobotRecipe,
    autoencoder as autoencoder,
    bridge as bridge,
    ddpm as ddpm,
    ddpm_images as ddpm_images,
    ddpm_latents as ddpm_latents,
    diffusion_policy_pusht as diffusion_policy_pusht,
    edm as edm,
    edm_images as edm_images,
    flow as flow,
    flow_images as flow_images,
    flow_latents as flow_latents,
    flow_policy as flow_policy,
    flow_policy_aloha_insertion as flow_policy_aloha_insertion,
    flow_policy_aloha_transfer as flow_policy_aloha_transfer,
    flow_policy_pusht as flow_policy_pusht,
    mean_flow_images as mean_flow_images,
    mean_flow_points as mean_flow_points,
    ot_flow as ot_flow,
    pi0 as pi0,
    pi0_aloha_insertion as pi0_aloha_insertion,
    pi0_aloha_transfer as pi0_aloha_transfer,
    pi0_pusht as pi0_pusht,
    shortcut_images as shortcut_images,
    shortcut_points as shortcut_points,
    super_resolution as super_resolution,
)
from .robots.policy import Policy as Policy
from .robots.simulators import SIMULATORS as SIMULATORS
from .samplers import SAMPLERS as SAMPLERS, sample as sample, trajectory as trajectory
from .training.trained import Trained as Trained
from .version import __version__ as __version__

__all__: list[str]
