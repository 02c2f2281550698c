"""A script for test_compile.py: compile whole steps, and print a line of JSON about each.

What a step needs of its grid is made before it, as floats: Scales by Path.along, rows by a sampler's plan, stages by
ode.stages. Making them is not traced (it ends in Tensor.tolist); everything after them is.
"""

import importlib
import json
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import DDPM, VP, Linear, Path, Scales
from ebbtide.networks import MLP
from ebbtide.samplers import Walk, walk
from ebbtide.samplers.multistep import multistep
from ebbtide.samplers.ode import EULER, HEUN, stages, step

TIMES = torch.tensor([0.8, 0.5, 0.3], dtype=torch.float64)
LAYERS = 3  # of the network: linear maps from x, from the time, to the output


def network() -> nn.Module:
    """With weights that matter, as its last layer starts at 0."""
    torch.manual_seed(0)
    mlp = MLP(2, width=16, depth=0)
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.3)
    return mlp


class Prepared(Path):
    """A path whose Scales along the grid are at hand."""

    def __init__(self, path: Path) -> None:
        self.path, self.grid = path, path.along(TIMES)

    def along(self, times: object) -> list[Scales]:
        return self.grid

    def scales(self, t: Tensor) -> Scales:
        return self.path.scales(t)


def last(walk: Iterator[Tensor]) -> Tensor:
    *_, x = walk
    return x


def ddim(path: Path, target: str = "velocity") -> Callable[[Tensor], Tensor]:
    denoiser = Denoiser(network(), path, target)
    denoiser.path = Prepared(path)
    return lambda x: last(walk("ddim", denoiser, x, TIMES))


def runge_kutta(path: Path, method, clock: str) -> Callable[[Tensor], Tensor]:
    denoiser = Denoiser(network(), path)
    (places,) = stages(path, path.along([0.8, 0.5]), [method], clock)
    return lambda x: step(denoiser, x, places, method)


def several_steps(path: Path, module: str, spec: str) -> Callable[[Tensor], Tensor]:
    """The plan is what the sampler hands to `multistep`; a walk, as a step needs the estimates before it."""
    denoiser, plans = Denoiser(network(), path), []
    home = importlib.import_module(f"ebbtide.samplers.{module}")
    real, home.multistep = home.multistep, lambda walk, plan: plans.append(plan) or ()
    walk(spec, denoiser, torch.zeros(1, 2), TIMES)
    home.multistep = real
    (plan,), grid = plans, path.along(TIMES)
    walked = lambda x: last(multistep(Walk(denoiser, x, grid), plan))
    x = torch.ones(1, 2)
    assert torch.equal(walked(x), last(walk(spec, denoiser, x, TIMES)))
    return walked


CASES = {
    "ddim": (ddim, 2),
    "ddim of noise": (lambda path: ddim(path, "noise"), 2),
    "euler": (lambda path: runge_kutta(path, EULER, "time"), 1),
    "heun": (lambda path: runge_kutta(path, HEUN, "time"), 2),
    "dpmpp_2m": (lambda path: several_steps(path, "dpm_solver", "dpmpp_2m"), 2),
    "unipc": (lambda path: several_steps(path, "exponential", "unipc"), 2),
    "exponential": (lambda path: several_steps(path, "exponential", "exponential"), 2),
}
ON = {"linear": Linear(), "vp": VP(), "ddpm": DDPM()}


def report(name: str, where: str) -> dict[str, object]:
    """What became of a step: the error, or how many graphs it took, the layers in them, how far it is off."""
    make, calls = CASES[name]
    found: dict[str, object] = {"name": name, "path": where}
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        function = make(ON[where])
        eager = function(x)
        try:
            compiled = torch.compile(function, fullgraph=True, backend=backend)(x)
        except Exception as error:
            return found | {"error": str(error).splitlines()[0], "where": str(error).splitlines()[-6:]}
    nodes = [node for graph in graphs for node in graph.graph.nodes]
    return found | {
        "error": None,
        "graphs": len(graphs),
        "layers": sum("linear" in str(node.target) for node in nodes if node.op == "call_function"),
        "expected": calls * LAYERS,
        "off": float((compiled - eager).abs().max()),
        "moved": float((eager - x).abs().max()),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    # What is traced has floats of the path, whichever it is: one step of either kind on others than the linear.
    for case, place in [*((case, "linear") for case in CASES), ("ddim", "vp"), ("unipc", "vp"), ("ddim", "ddpm")]:
        print(json.dumps(report(case, place)))
