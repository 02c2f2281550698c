"""From eight Gaussians to two moons: the other end of a path need not be noise."""

from tempfile import TemporaryDirectory

import ebbtide
from ebbtide.data import load
from ebbtide.metrics import sliced_w2

recipe = ebbtide.ot_flow(data="two_moons", source="eight_gaussians", steps=300, batch=128)
with TemporaryDirectory() as folder:
    trained = ebbtide.fit(recipe, out=folder, progress=False)
    *_, (_, moons) = trained.trajectory(2000, seed=1, sampler="heun", steps=20)

fresh = load("two_moons", 2000, seed=7).x
print(f"sliced W2 to fresh moons: {sliced_w2(moons, fresh):.3f}")
print(f"truth against truth:      {sliced_w2(load('two_moons', 2000, seed=8).x, fresh):.3f}")
