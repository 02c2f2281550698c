"""Slips: a type checker refuses each line that is marked `# wrong`."""

import ebbtide
from ebbtide.recipes import flow

ebbtide.fitt("flow")  # wrong
ebbtide.fit("flow", step=3)  # wrong
ebbtide.fit("flow", progress="no")  # wrong
flow(stepz=300)  # wrong
flow(steps="many")  # wrong
flow(horizon=3)  # wrong
ebbtide.from_pretrained("run", data=3)  # wrong
ebbtide.from_pretrained("run").sampel(10)  # wrong
ebbtide.from_pretrained("run").sample("ten")  # wrong
ebbtide.Denoiser(ebbtide.MLP(dim=2), "linear")  # wrong
ebbtide.Draws.first("ten", seed=0)  # wrong
ebbtide.fit("flow").recipe.stepz  # wrong
number: int = ebbtide.fit("flow")  # wrong
