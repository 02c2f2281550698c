"""What users may write: a type checker accepts every line."""

from pathlib import Path

import numpy as np
from torch import Tensor

import ebbtide
from ebbtide import InputError, Trained, flow
from ebbtide.recipes import ddpm_images, flow_policy

table = np.zeros((100, 3))
trained: Trained = ebbtide.fit("flow", table, y=np.arange(100) % 2, progress=False)
again: Trained = ebbtide.fit(flow(data="table.csv", steps=300), out=Path("runs") / "table", resume=True)
x: Tensor = trained.sample(1000, seed=0, label=1, sampler="ddim", steps=20)
loaded: Trained = ebbtide.from_pretrained(Path("runs") / "table", data="table.csv")
path: ebbtide.Path = ebbtide.Linear()
network = ebbtide.MLP(dim=2)
denoiser = ebbtide.Denoiser(network, ebbtide.Cosine(), "v")
end: Tensor = ebbtide.sample(denoiser, (2,), sampler="heun", steps=20, draws=ebbtide.Draws.first(10, seed=0))
image_recipe: ebbtide.ImageRecipe = ddpm_images(size=32, flip=True)
robot_recipe: ebbtide.RobotRecipe = flow_policy(data="demos.npz", horizon=32)
names: list[str] = list(ebbtide.RECIPES)
try:
    loaded.save_pretrained("shared")
except InputError as error:
    print(error.exit_code)
