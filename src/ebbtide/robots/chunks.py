"""Chunks of actions for a policy: of a denoiser and any sampler, or of whatever else makes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..codecs import Codec
from ..core.denoiser import DenoiserLike
from ..core.guidance import Bounded
from ..core.randomness import Draws
from ..data.episodes import Robot
from ..inverse.chunking import Previous, real_time
from ..networks.observation import conditions
from ..samplers import Stepper, sample
from ..specs import expect, require
from ..training.devices import place_of

__all__ = ["ChunkSampler", "DenoiserChunks"]


@runtime_checkable
class ChunkSampler(Protocol):
    """The interface for Policy: DenoiserChunks, or anything else that turns observations into chunks of actions."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(horizon, actions' width)."""

    @property
    def observation(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes without batch, of all n_obs_steps together: state (o, s), images (o × cameras, h, w, 3), …"""

    @property
    def n_obs_steps(self) -> int: ...

    @property
    def n_action_steps(self) -> int: ...

    def sample_chunks(
        self, observation: dict[str, Tensor], *, draws: Draws, previous: Previous | None = None
    ) -> Float[Tensor, "b h a"]:
        """A chunk for each id of `draws`; observations, chunks and the rest of the previous ones in the data's units.

        Index 0 of a chunk is the action for the step of the latest observation.
        """


@dataclass(frozen=True, eq=False)
class DenoiserChunks:
    """Chunks from a denoiser and any sampler, between the data's units and the network's.

    codec: of actions. inputs: of the observation's parts, by key; a part without one is passed on unchanged.
    bound: clip estimates of x₀ to ± this, in the network's units; 0 turns it off.
    robot: the robot of the chunks, if known; `rollout` refuses a simulator of another one.
    beta, solve: of real-time chunking (see chunking.RealTime).

    If the network has a `context` method, it is called once, and every step of the sampler receives its result instead
    of the observation. So the part independent of x and t, such as a vision encoder, runs once per chunk.
    """

    denoiser: DenoiserLike
    shape: tuple[int, ...]
    observation: Mapping[str, tuple[int, ...]]
    n_obs_steps: int = 1
    n_action_steps: int = 8
    codec: Codec | None = None
    inputs: Mapping[str, Codec] = field(default_factory=dict)
    sampler: str | Stepper = "euler"
    steps: int = 10
    grid: str | Sequence[float] = "uniform"
    bound: float = 0.0
    robot: Robot = field(default_factory=Robot)
    beta: float = 5.0
    solve: int = 0

    def __post_init__(self) -> None:
        expect("denoiser", self.denoiser, Callable)
        expect("shape", self.shape, tuple)
        expect("observation", self.observation, Mapping)
        expect("codec", self.codec, Codec, None)
        expect("inputs", self.inputs, Mapping)
        expect("robot", self.robot, Robot)
        require("n_obs_steps", self.n_obs_steps, 1, whole=True)
        require("n_action_steps", self.n_action_steps, 1, whole=True)
        require("bound", self.bound, 0)

    def sample_chunks(
        self,
        observation: dict[str, Tensor],
        *,
        draws: Draws,
        previous: Previous | None = None,
        noise: Float[Tensor, "b h a"] | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Chunks as `ChunkSampler` describes them.

        noise: the standard normal numbers where they begin, instead of those of `draws`.
        previous: the chunk to continue; None to begin anew.
        """
        network, device = None, None
        if isinstance(self.denoiser, torch.nn.Module):
            network, device = self.denoiser.network, place_of(self.denoiser)
        seen = {
            name: self.inputs[name].encode(part) if name in self.inputs else part for name, part in observation.items()
        }
        denoiser: DenoiserLike = self.denoiser
        if previous is not None:
            known = previous.actions if self.codec is None else self.codec.encode(previous.actions)
            rest = Previous(known.to(device=device), previous.weights.to(device=device))
            denoiser = real_time(denoiser, rest, beta=self.beta, solve=self.solve)
        if self.bound:
            denoiser = Bounded(denoiser, self.bound)
        options: dict[str, Any] = {"sampler": self.sampler, "steps": self.steps, "grid": self.grid}
        own = Draws(draws.seed, draws.ids.to(device=device))
        if noise is not None:
            options["start"] = self.denoiser.path.prior(noise.to(device=device))
        chunks = sample(denoiser, self.shape, draws=own, **options, **conditions(network, seen)).cpu()
        return chunks if self.codec is None else self.codec.decode(chunks)
