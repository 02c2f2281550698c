"""Learn the distribution of a table of your own: columns in, new rows out, in the table's own units."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import ebbtide

with TemporaryDirectory() as scratch:
    folder = Path(scratch)

    # A stand-in for your file: height in cm and weight in kg of two groups, with a label column.
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal(165, 6):.1f},{rng.normal(60, 7):.1f},adult" for _ in range(2000)]
    rows += [f"{rng.normal(110, 8):.1f},{rng.normal(19, 3):.1f},child" for _ in range(2000)]
    (folder / "people.csv").write_text("height,weight,group\n" + "\n".join(rows))

    recipe = ebbtide.flow(data=str(folder / "people.csv"), label="group", conditional=True, steps=200)
    trained = ebbtide.fit(recipe, out=folder / "run", progress=False)

    for group in trained.classes:
        height, weight = trained.sample(2000, label=group).mean(0).tolist()
        print(f"{group}: {height:.0f} cm, {weight:.0f} kg")
