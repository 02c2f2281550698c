"""A folder of images → a flow → new images, and what they score beside images that were held out."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import ebbtide
from ebbtide.kinds.images import kind as images
from ebbtide.metrics import table

with TemporaryDirectory() as scratch:
    photos, rng = Path(scratch) / "photos", np.random.default_rng(0)

    # A stand-in for your folder: coloured discs of two sizes, each in its own folder.
    rows, columns = np.indices((16, 16))
    for k in range(120):
        disc = (rows - rng.uniform(5, 10)) ** 2 + (columns - rng.uniform(5, 10)) ** 2 < (3, 6)[k % 2] ** 2
        image = np.where(disc[..., None], rng.integers(120, 256, 3), 20).astype(np.uint8)
        place = photos / ("small", "large")[k % 2] / f"{k}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)

    network = "unet:width=16,multipliers=1-2,attention=0-0,patch=2"
    data = {"data": str(photos), "label": "folder", "conditional": True, "held_out": 0.3}
    recipe = ebbtide.flow_images(**data, network=network, steps=60, batch=32)
    trained = ebbtide.fit(recipe, out=Path(scratch) / "run", snapshots=0, progress=False)

    x = trained.sample(32, label="large", steps=10)  # (32, 3, 16, 16): pixel values 0..255, not clipped
    images.draw_samples(trained, x, None, Path(scratch) / "samples.png")
    print(table(images.evaluate(recipe, x)))
