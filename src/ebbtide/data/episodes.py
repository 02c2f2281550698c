"""Recorded robot episodes: what was seen and done at each step, and the windows of them that a policy learns from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ..codecs import IDENTITY, Codec, codec_from_config
from ..errors import InputError
from ..specs import expect, named_list, require, shaped
from .levels import Levels
from .shards import Derived, OnDisk, chosen_of
from .unread import Unread, read

__all__ = ["Episodes", "Observation", "Robot", "Windows", "columns", "numbered", "prompt_bytes", "resized"]


class Robot(NamedTuple):
    """Names of a robot's states and actions, and its steps per second; () and 0 if unknown."""

    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    fps: float = 0.0

    def check(self, other: "Robot", name: str) -> None:
        """InputError where another robot, or a recording, differs in what is known of both. name: of the other."""
        for kind in ("state", "action"):
            own, others = (getattr(robot, f"{kind}_names") for robot in (self, other))
            known = all(names and names != numbered(kind, len(names)) for names in (own, others))
            if own != others and (known or (own and others and len(own) != len(others))):
                raise InputError(
                    f"The policy was trained with the {kind} {', '.join(own)}; that of {name} is {', '.join(others)}."
                )
        if self.fps and other.fps and not math.isclose(self.fps, other.fps, rel_tol=0.01):  # 29.97 is 30
            raise InputError(
                f"The policy was trained on {self.fps:g} steps a second; {name} has {other.fps:g} steps a second."
            )


def numbered(kind: str, width: int) -> tuple[str, ...]:
    """The names of columns that have none."""
    return tuple(f"{kind}_{i}" for i in range(width))


@dataclass(frozen=True)
class Episodes:
    """Episodes end to end: n steps of all of them. Their rows are in memory, on the disk, or still in files.

    state: that of the robot and, where given, of the objects, in the simulator's or robot's own units; of
        no columns where images are all there is.
    action: what was commanded at that step, likewise.
    ends: the place after each episode's last step; the last of them is n.
    images: by camera's name, (n, h, w, 3) of any size. tasks: the instruction of each episode. fps: steps in a second,
    0 where that isn't known. levels: of cameras whose images had more than 8 bits, the values that became 0 and 255.
    """

    state: Float[Tensor, " n s"] | Any
    action: Float[Tensor, " n a"] | Any
    ends: Int[Tensor, " e"]
    images: Mapping[str, UInt8[Tensor, " _n _h _w 3"] | Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    fps: float = 10.0
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    levels: Mapping[str, Levels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, sides in {"state": ("n", "s"), "action": ("n", "a"), "ends": ("e",)}.items():
            if name == "ends" or not isinstance(getattr(self, name), OnDisk | Unread):
                expect(f"The episodes' {name}", getattr(self, name), Tensor)
            shaped(f"The episodes' {name}", getattr(self, name), *sides)
        require("The episodes' fps", self.fps, 0)
        n, ends = len(self.state), self.ends
        lengths = ends.diff(prepend=ends.new_zeros(1))
        if len(ends) == 0 or int(ends[-1]) != n or len(self.action) != n or bool((lengths <= 0).any()):
            raise InputError(
                f"An episode must have at least one step, and ends must rise to the number of steps; got {n} states, "
                f"{len(self.action)} actions and ends {ends[:5].tolist()} …"
            )
        if self.tasks and len(self.tasks) != len(ends):
            raise InputError(f"There must be one task for each of {len(ends)} episodes; got {len(self.tasks)}.")
        for name, values in {"state": self.state, "action": self.action}.items():
            if isinstance(values, Tensor) and not bool(values.isfinite().all()):
                raise InputError(f"The episodes' {name} holds numbers that are not finite.")
            names = self.state_names if name == "state" else self.action_names
            if names and len(names) != values.shape[1]:
                raise InputError(f"{name}_names must be one for each of {values.shape[1]} columns; got {len(names)}.")
        for camera, frames in self.images.items():
            if not isinstance(frames, OnDisk | Unread):
                expect(f"The images of {camera!r}", frames, Tensor)
            shaped(f"The images of {camera!r}, one for each step,", frames, n, "h", "w", 3)

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.ends)

    @property
    def starts(self) -> Int[Tensor, " e"]:
        """The place of each episode's first step."""
        return torch.cat([self.ends.new_zeros(1), self.ends[:-1]])

    @property
    def robot(self) -> Robot:
        """The recorded robot."""
        return Robot(self.state_names, self.action_names, self.fps)

    def columns(self, wanted: str, angles: str = "") -> "Episodes":
        """With these columns of the state alone, found by name or by place; see `columns`."""
        state, names = _columns(self.state, self.state_names, wanted, angles, by_place=True)
        return replace(self, state=state, state_names=names)

    def actions(self, wanted: str) -> "Episodes":
        """With these columns of the action alone, likewise."""
        action, names = _columns(self.action, self.action_names, wanted, by_place=True, what="action")
        return replace(self, action=action, action_names=names)

    def cut(self, episodes: Sequence[int]) -> "Episodes":
        """These episodes alone, in this order."""
        spans = [(int(self.starts[e]), int(self.ends[e])) for e in episodes]
        rows = torch.cat([torch.arange(*span) for span in spans])
        return replace(
            self,
            state=chosen_of(self.state, rows),
            action=chosen_of(self.action, rows),
            ends=torch.tensor([end - start for start, end in spans]).cumsum(0),
            images={name: chosen_of(frames, rows) for name, frames in self.images.items()},
            tasks=tuple(self.tasks[e] for e in episodes) if self.tasks else (),
        )

    def read(self, **how: Any) -> "Episodes":
        """With all rows in memory, or on the disk if they are larger than `how` allows (see `unread.read`)."""
        every = {("", "state"): self.state, ("", "action"): self.action}
        every |= {("images", name): frames for name, frames in self.images.items()}
        found, levels = read({name: x for name, x in every.items() if not isinstance(x, Tensor)}, **how)
        made = every | found
        return replace(
            self, state=made["", "state"], action=made["", "action"],
            images={name: made["images", name] for name in self.images},
            levels={**self.levels, **{name: used for (_, name), used in levels.items()}},
        )  # fmt: skip


def _columns(x: Any, names: Sequence[str], *how: Any, **named: Any) -> tuple[Any, tuple[str, ...]]:
    """`columns` of rows, also of those on the disk."""
    kept = columns(torch.zeros(0, *x.shape[1:]), names, *how, **named)[1]
    if kept == tuple(names) and len(kept) == x.shape[1]:
        return x, kept

    def made(rows: Float[Tensor, "k s"]) -> Float[Tensor, "k t"]:
        return columns(rows, names, *how, **named)[0]

    return Derived((x,), made) if isinstance(x, OnDisk) else made(x), kept


def columns(
    state: Float[Tensor, "*n s"],
    names: Sequence[str],
    wanted: str,
    angles: str = "",
    *,
    by_place: bool = False,
    what: str = "state",
) -> tuple[Float[Tensor, "*n k"], tuple[str, ...]]:
    """These columns of a state, or of what it is, by name and comma, and their names; "all" of them, or "none".

    angles: those in radians that are seen as sine and cosine, for an angle jumps where it has come round.
    by_place: for a recording whose columns have no names, or others for the same things: where there are as many wanted
        names as columns, and none of them is a column's, the first is taken to be the first column's, and so on. The
        order they are wanted in must then be that of the recording: nothing can tell whether it is.
    """
    chosen = list(names) if wanted == "all" else [] if wanted == "none" else named_list(wanted)
    turned = named_list(angles)
    if by_place and len(chosen) == len(set(chosen)) == len(names) and not set(chosen) & set(names):
        names = chosen
    if unknown := [name for name in (*chosen, *turned) if name not in names]:
        raise InputError(f"The {what} has no column {unknown[0]!r}; it has {', '.join(names) or 'none'}.")
    parts, kept = [state[..., :0]], []
    for name in chosen:
        column = state[..., names.index(name), None]
        parts += [column.sin(), column.cos()] if name in turned else [column]
        kept += [f"sin {name}", f"cos {name}"] if name in turned else [name]
    return torch.cat(parts, -1), tuple(kept)


def resized(frames: UInt8[Tensor, " n h w 3"], size: int) -> UInt8[Tensor, " n r q 3"]:
    """Images with sides of this many pixels, each pixel the mean of the old image over its area; 0 leaves them.

    An old pixel that is partly covered counts as much as is covered. To enlarge is the same: each pixel comes several
    times, and where a new one lies across two it is their mixture. Sums are of whole numbers, hence exact: an image
    becomes the same to the bit alone, among others, and on any machine.
    """
    expect("frames", frames, Tensor)
    shaped("frames", frames, "n", "h", "w", 3)
    require("size", size, 0, whole=True)
    h, w = frames.shape[1:3]
    if not size or (h, w) == (size, size):
        return frames
    most = 255 * h * w // (math.gcd(h, size) * math.gcd(w, size))
    exact = torch.float32 if most < 2**24 else torch.float64
    parts = []
    for part in frames.split(min(256, max(1, _TOGETHER // (3 * h * w)))):
        rows, high = _sums(part.flatten(2), size, exact)
        both, wide = _sums(rows.unflatten(2, (w, 3)).flatten(0, 1), size, exact)
        parts.append((both / (high * wide)).round().to(torch.uint8).unflatten(0, (len(part), size)))
    return torch.cat(parts)


_TOGETHER = 2**23  # numbers in flight, so that large images don't fill the memory


def _sums(x: Tensor, size: int, dtype: torch.dtype) -> tuple[Float[Tensor, "b {size} m"], int]:
    """Σ_j w_ij x_j over the second axis, of n pixels, for each of `size` new ones, and what its weights add up to.

    On a ruler on which old pixels are s long and new ones r, s : r = size : n in lowest terms, w_ij is how much of old
    pixel j, from j s to (j + 1) s, lies in new pixel i, from i r to (i + 1) r.
    """
    n = x.shape[1]
    r, s = n // math.gcd(n, size), size // math.gcd(n, size)
    begin = torch.arange(size, device=x.device) * r
    total = x.new_zeros(len(x), size, x.shape[2], dtype=dtype)
    for k in range(-(-r // s) + (s > 1)):
        j = begin // s + k
        weight = ((j + 1) * s).minimum(begin + r) - (j * s).maximum(begin)
        total += x[:, j.clamp(max=n - 1)] * weight.clamp(min=0).to(dtype)[:, None]
    return total, r


@dataclass(frozen=True)
class Observation:
    """A policy's observation: the shapes of its parts by name, as its network takes them; the state's codec and
    names, and the number of steps per second, 0 if unknown.

    state (o, s); images (o × cameras, h, w, 3) in uint8; prompt (l,), UTF-8 bytes + 1, and 0 after its end.
    """

    shapes: Mapping[str, tuple[int, ...]]
    codec: Codec = IDENTITY
    names: tuple[str, ...] = ()
    fps: float = 0.0

    def __post_init__(self) -> None:
        for name, shape in self.shapes.items():
            if len(shape) != _DIMENSIONS.get(name) or min(shape) < 1:
                raise InputError(
                    f"An observation has a state (o, s), images (k, h, w, 3), a prompt (l,); got {name} {shape}."
                )

    def robot(self, action_names: tuple[str, ...]) -> Robot:
        """The robot that is seen so and acts with these."""
        return Robot(self.names, action_names, self.fps)

    def see(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Observations of n steps in the robot's units → as the network takes them, which refuses what doesn't fit."""
        return {name: self.codec.encode(part) if name == "state" else part for name, part in given.items()}

    def to_config(self) -> dict[str, Any]:
        """This as JSON-ready data."""
        return {
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "codec": self.codec.to_config(),
            "names": list(self.names),
            "fps": self.fps,
        }

    @classmethod
    def from_config(cls, config: Any) -> "Observation":
        """The inverse of `to_config`; anything else is an InputError."""
        config = {"fps": 0, **config} if isinstance(config, Mapping) else {}  # fps, which older versions wrote without
        if "transform" in config:  # its name in format 1
            config["codec"] = config.pop("transform")
        shapes = config.get("shapes") if set(config) == {"shapes", "codec", "names", "fps"} else None
        names, fps = config.get("names"), config.get("fps")
        if (
            not isinstance(shapes, Mapping)
            or not isinstance(names, list)
            or not isinstance(fps, int | float)
            or not 0 <= fps < math.inf
            or not all(
                isinstance(shape, list) and all(type(n) is int and 1 <= n <= 10**6 for n in shape)
                for shape in shapes.values()
            )
        ):
            raise InputError(f"An observation must be a table of shapes and a codec; got {str(config)[:60]}.")
        return cls(
            {name: tuple(shape) for name, shape in shapes.items()},
            codec_from_config(config["codec"]),
            tuple(map(str, names)),
            float(fps),
        )


_DIMENSIONS = {"state": 2, "images": 4, "prompt": 1}


def prompt_bytes(texts: Sequence[str], length: int) -> Int[Tensor, " n {length}"]:
    """Instructions as UTF-8 bytes + 1, filled up with 0; an InputError for one that is longer, or not UTF-8's."""
    expect("texts", texts, list, tuple)
    for text in texts:
        expect("The prompt", text, str)
    try:
        rows = [[byte + 1 for byte in text.encode()] for text in texts]
    except UnicodeEncodeError as error:
        raise InputError(f"The prompt must be text that UTF-8 can hold; got {error.object[:60]!r}.") from None
    longest = max(range(len(rows)), key=lambda i: len(rows[i]))
    if len(rows[longest]) > length:
        raise InputError(
            f"The prompt may have at most {length} bytes; got {len(rows[longest])}: {texts[longest][:60]!r}."
        )
    return torch.tensor([row + [0] * (length - len(row)) for row in rows]).reshape(len(rows), length)


@dataclass(frozen=True)
class Windows:
    """Every step of the episodes as an example: the actions of the next H steps, given what was seen in the last o.

    Before an episode's start its first step is repeated, after its end its last action; `mask` marks the real ones.
    All in the network's units. images: (n, cameras, h, w, 3). prompt: one row for each episode. Actions, states and
    images may be on the disk, or be fetched when they are taken (`place.Fetched`): then batches are made ahead.
    """

    action: Float[Tensor, " n a"] | Any
    ends: Int[Tensor, " e"]
    horizon: int
    n_obs_steps: int
    state: Float[Tensor, " n s"] | Any = None
    images: UInt8[Tensor, " n c h w 3"] | Any = None
    prompt: Int[Tensor, " e l"] | None = None
    masked: bool = True
    x1: None = None

    def __len__(self) -> int:
        return len(self.action)

    @property
    def ahead(self) -> bool:
        """True if steps have to be fetched, so that a batch is best made while the one before it is learned."""
        return not all(x is None or isinstance(x, Tensor) for x in (self.action, self.state, self.images))

    def to(self, device: torch.device) -> "Windows":
        """The same on a device; what is fetched is found on the CPU."""
        names = ("action", "state", "images", *(() if self.ahead else ("ends", "prompt")))
        parts = {name: getattr(self, name) for name in names}
        moved = {name: x.to(device) for name, x in parts.items() if x is not None and not isinstance(x, OnDisk)}
        return replace(self, **moved)

    def take(self, indices: Int[Tensor, " b"], draw: torch.Generator | None = None) -> dict[str, Tensor]:
        """The chunks of actions that begin at these steps, and what was seen there."""
        indices = indices.to(self.ends.device)
        end = self.ends[self._episode(indices), None]
        ahead = indices[:, None] + torch.arange(self.horizon, device=indices.device)
        taken = {"x0": _at(self.action, ahead.minimum(end - 1))}
        if self.masked:
            taken["mask"] = (ahead < end)[..., None]
        taken |= self.seen(indices)
        return {name: part.to(taken["x0"].device) for name, part in taken.items()}

    def seen(self, indices: Int[Tensor, " b"]) -> dict[str, Tensor]:
        """The observations at these steps and the o - 1 before them."""
        episode = self._episode(indices)
        start = torch.where(episode > 0, self.ends[(episode - 1).clamp(min=0)], 0)[:, None]
        past = indices[:, None] + torch.arange(1 - self.n_obs_steps, 1, device=indices.device)
        past = past.maximum(start)
        seen = {} if self.state is None else {"state": _at(self.state, past)}
        if self.images is not None:
            seen["images"] = _at(self.images, past).flatten(1, 2)
        if self.prompt is not None:
            seen["prompt"] = self.prompt[episode]
        return seen

    def _episode(self, indices: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return torch.searchsorted(self.ends, indices, right=True)


def _at(x: Any, places: Int[Tensor, "b k"]) -> Tensor:
    """The rows at these places; those on a device that isn't the places' are found there."""
    flat = places.flatten()
    rows = x.index_select(0, flat.to(x.device) if isinstance(x, Tensor) else flat)
    return rows.unflatten(0, places.shape)
