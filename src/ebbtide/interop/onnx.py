"""A run as an ONNX graph, for any runtime: its network alone, or the way from noise to samples in one graph.

Scales, times and conversions of a sampler's steps are constants of the graph, so N steps are N copies of the network's
nodes, which share its weights. Needs the extra `onnx`.
"""

import copy
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..codecs import Cells
from ..core.paths import Path, Scales
from ..core.times import grid_times
from ..errors import EbbtideError, InputError
from ..files import write_file
from ..networks.observation import conditions
from ..samplers import facts, walk
from ..specs import require
from ..training.storage import folder_name

if TYPE_CHECKING:
    from ..training.trained import Trained

__all__ = ["OnnxGraph", "save_onnx"]

AGREES = 1e-4  # of the largest number: what the graph's outputs may differ by, in onnxruntime, from torch's
_EXAMPLES = 3  # samples that it is traced with; it takes any number


class OnnxGraph(NamedTuple):
    """A written graph: its inputs and outputs, and how far its numbers are from torch's, over the largest of them."""

    file: FilePath
    inputs: tuple[str, ...]
    output: str
    difference: float


def save_onnx(
    trained: "Trained",
    file: str | FilePath,
    *,
    steps: int | None = None,
    sampler: str = "",
    grid: str = "",
    overwrite: bool = False,
) -> OnnxGraph:
    """Write the run's network as an ONNX graph, or with steps, sampler or grid its way from noise to samples.

    The network takes x (n, *latent) and t (n), and returns its output, `target` of the file's metadata. A sampler takes
    noise (n, *latent), standard normal, and returns samples in data units: the same as `Trained.sample` from that
    noise. Of a run between two sets it takes `start` instead, in data units. Both take label (n), an index of the
    classes or their number for none, of a policy also its observation's parts in the robot's units. n is free.

    Compared with torch in onnxruntime before it is written. Raises InputError where the extra `onnx` is missing, for a
    sampler that draws noise, and for a run that holds what no ONNX operator computes.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"ONNX needs the package {name}: pip install 'ebbtide[onnx]'.")
    trained.sampling()
    trained.given_nothing("its graph has no input for")
    target = folder_name("file", file)
    if target.is_dir():
        raise InputError(f"{file} is a folder; name a file, such as model.onnx.")
    if target.suffix.lower() != ".onnx":
        raise InputError(f"{file} must end in .onnx.")
    if target.exists() and not overwrite:
        raise InputError(f"{file} exists; give overwrite=True (--overwrite) to replace it.")
    if steps is not None:
        require("steps", steps, 1, 1000, whole=True)
    whole = steps is not None or bool(sampler) or bool(grid)
    if whole and isinstance(trained.codec, Cells):
        raise InputError(
            "This run sees its columns by their ranks or levels, and a graph can't look those up: leave steps and "
            "sampler out for the network alone, or train with --codec standardise."
        )
    graph: nn.Module = _Sampled(trained, steps, sampler or None, grid or None) if whole else _Alone(trained)
    example = _example(trained, whole)
    with torch.no_grad():
        graph(example)  # the rehearsal
    output = "samples" if whole else "y"
    data = _exported(graph, example, output, _metadata(trained, whole))
    difference = _checked(data, graph, example, output)
    write_file(target, data)
    return OnnxGraph(FilePath(file), tuple(example), output, difference)


class _Alone(nn.Module):
    """The network as its denoiser calls it."""

    def __init__(self, trained: "Trained") -> None:
        super().__init__()
        self.network = trained.denoiser.network.eval()
        self.see = _Seen(trained)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        given = dict(inputs)
        x, t = given.pop("x"), given.pop("t")
        y: Tensor = self.network(x, t, **self.see(given))
        return y


class _Sampled(nn.Module):
    """noise → samples in data units."""

    def __init__(self, trained: "Trained", steps: int | None, sampler: str | None, grid: str | None) -> None:
        super().__init__()
        choice = trained.choice(sampler, grid, steps)
        self.sampler, path = choice.sampler, trained.denoiser.path
        own = facts(self.sampler) if isinstance(self.sampler, str) else None
        if own and own.noise:
            raise InputError(f"{self.sampler} draws noise at every step, and a graph draws none; give --sampler heun.")
        if own and not (own.order or own.spans):
            raise InputError(f"{self.sampler} chooses its steps by x, and a graph's are fixed; give --sampler heun.")
        self.times = grid_times(choice.grid, choice.steps, path)
        self.network = trained.denoiser.network.eval()
        self.path = _Rehearsed(path)
        denoiser = copy.copy(trained.denoiser)  # the same network, on a path whose numbers are constants
        denoiser.path = self.path
        self.denoiser = replace(trained, denoiser=denoiser).steered()
        self.codec, self.see = trained.codec, _Seen(trained)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        given = dict(inputs)
        self.path.restart()
        if "noise" in given:
            x = self.denoiser.path.prior(given.pop("noise"))
        else:
            start = given.pop("start")
            x = start if self.codec is None else self.codec.encode(start)
        *_, x = walk(self.sampler, self.denoiser, x, self.times, cond=self.see(given))
        return x if self.codec is None else self.codec.decode(x)


class _Numbers(list[float]):
    """Numbers where a sampler expects a tensor of them, which a tracer would follow."""

    def tolist(self) -> list[float]:
        return list(self)

    def numpy(self) -> np.ndarray:
        return np.array(self)


class _Rehearsed(Path):
    """A path that repeats, from the second walk on, the numbers that it gave in the first.

    They depend on a grid's times alone, and not on x. So they are constants of a graph, though torch computes them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.given: list[Any] = []
        self.again: Iterator[Any] | None = None

    def restart(self) -> None:
        """Begin a walk: after the first, one that repeats its numbers."""
        self.again = iter(self.given) if self.given else None

    def _told(self, number: Callable[[], Any]) -> Any:
        if self.again is not None:
            return next(self.again)
        self.given.append(number())
        return self.given[-1]

    def scales(self, t: Tensor) -> Scales:
        return self.path.scales(t)

    def along(self, times: Iterable[float] | Tensor) -> list[Scales]:
        found: list[Scales] = self._told(lambda: self.path.along(times))
        return found

    def time_of(self, ratio: Tensor) -> Any:
        return self._told(lambda: _Numbers(self.path.time_of(ratio).tolist()))

    def time_at(self, tau: Tensor) -> Any:
        return self._told(lambda: _Numbers(self.path.time_at(tau).tolist()))

    def prior(self, noise: Tensor) -> Tensor:
        return noise * self._told(lambda: self.path.along([1.0])[0].sigma)


class _Seen:
    """A network's conditions of a graph's other inputs: the label as it is, and a policy's context."""

    def __init__(self, trained: "Trained") -> None:
        self.network, self.observation = trained.denoiser.network, trained.observation

    def __call__(self, given: Mapping[str, Tensor]) -> dict[str, Any]:
        rest = dict(given)
        label = {"label": rest.pop("label")} if "label" in rest else {}
        return label | (conditions(self.network, self.observation.see(rest)) if self.observation is not None else {})


def _example(trained: "Trained", whole: bool) -> dict[str, Tensor]:
    """Inputs of the graph by name, of several samples."""
    n, draw = _EXAMPLES, torch.Generator().manual_seed(0)
    x = torch.randn(n, *trained.latent_shape, generator=draw)
    if not whole:
        inputs = {"x": x, "t": torch.linspace(0.9, 0.2, n)}
    elif getattr(trained.recipe, "source", "noise") != "noise":
        inputs = {"start": trained.to_data(x)}
    else:
        inputs = {"noise": x}
    if trained.recipe.learns_labels:
        inputs["label"] = torch.arange(n) % len(trained.classes)
    kinds = {"state": torch.float32, "images": torch.uint8, "prompt": torch.int64}
    for name, shape in ({} if trained.observation is None else trained.observation.shapes).items():
        numbers = torch.rand(n, *shape, generator=draw)
        inputs[name] = (numbers if name == "state" else numbers * 200).to(kinds[name])
    return inputs


def _exported(graph: nn.Module, example: dict[str, Tensor], output: str, about: dict[str, str]) -> bytes:
    """The graph's bytes; InputError names what no operator computes."""
    free = torch.export.Dim("n", min=1)
    shapes = {"inputs": {name: {0: free} for name in example}}
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [log.level for log in logs]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            for log in logs:
                log.setLevel(logging.ERROR)
            program = torch.onnx.export(
                graph, (), kwargs={"inputs": example}, dynamo=True, input_names=list(example), output_names=[output],
                dynamic_shapes=shapes, verbose=False,
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise InputError(f"This run can't be an ONNX graph: {_sentence(cause)}") from error
    finally:
        for log, level in zip(logs, levels):
            log.setLevel(level)
    assert program is not None
    program.model.metadata_props.update(about)
    graphs: list[Any] = [program.model.graph, *program.model.functions.values()]
    for part in [*graphs, *(node for one in graphs for node in one)]:
        part.metadata_props.clear()  # where it was traced: paths of this machine, in half of the file
        part.doc_string = None
    with tempfile.TemporaryDirectory() as scratch:
        file = FilePath(scratch) / "model.onnx"
        program.save(file)
        if len(list(FilePath(scratch).iterdir())) > 1:
            raise InputError("A network of more than 2 GB doesn't fit in one ONNX file.")
        return file.read_bytes()


def _checked(data: bytes, graph: nn.Module, example: dict[str, Tensor], output: str) -> float:
    """The largest difference to torch over the largest number; EbbtideError where it is too large."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for n in (_EXAMPLES, 1):
        inputs = {name: part[:n] for name, part in example.items()}
        try:
            (found,) = session.run([output], {name: part.numpy() for name, part in inputs.items()})
        except Exception as error:  # onnxruntime's own, of several classes
            raise InputError(
                f"This run's graph doesn't take {n} samples, only {_EXAMPLES}: {_sentence(error)}"
            ) from error
        with torch.no_grad():
            expected = graph(inputs)
        scale = float(expected.abs().max().clamp(min=1))
        worst = max(worst, float((torch.from_numpy(found) - expected).abs().max()) / scale)
    if not worst < AGREES:
        raise EbbtideError(f"The ONNX graph is off by {worst:.1e} of the largest number, above {AGREES}: not written.")
    return worst


def _metadata(trained: "Trained", whole: bool) -> dict[str, str]:
    recipe = trained.recipe.shared()
    about = {"path": recipe.path, "target": recipe.target, "time": "t = 0 is data, t = 1 is noise"}
    return about | {"units": "the data's" if whole else "the network's", "classes": "\n".join(trained.classes)}


def _sentence(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
