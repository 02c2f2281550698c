"""Records of training in progress, in a run folder.

metrics.jsonl                one line every few steps
evolution/step-00003000.npy  the same samples at every stage, in data units
"""

import io
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..arrays import npy
from ..errors import InputError
from ..files import append_to, read_file, storage, write_file
from .devices import accelerate
from .trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["HELD", "TRACKED", "Log", "begin_tracking", "evolution", "line_every", "read_metrics", "track_evaluation"]

HELD = "held_out_loss"  # in a line of metrics.jsonl, where it was measured
TRACKED = "ebbtide"  # the project that trackers write of, and tensorboard's folder in the run's


def evolution(folder: Path, shape: tuple[int, ...] | None = None) -> list[tuple[int, np.ndarray]]:
    """(step, samples of that shape) as they were drawn while training went on; files of other names are not ours."""
    files = sorted((folder / "evolution").glob("step-*.npy"))
    steps = [re.fullmatch("step-([0-9]{1,12})", file.stem) for file in files]
    return [(int(step[1]), _read(file, shape)) for file, step in zip(files, steps, strict=True) if step]


def _read(file: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    try:
        array = npy(file).read(0)
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror or error}.") from error
    samples = array.ndim > 1 and array.dtype.kind in "fu" and len(array)
    if not samples or shape not in (None, array.shape[1:]):
        raise InputError(f"{file} must hold samples{'' if shape is None else f' of shape {shape}'}, and doesn't.")
    return array


def line_every(steps: int) -> int:
    """The number of steps of which one line of a run's metrics is the mean."""
    return max(1, steps // 500)


class Log:
    """metrics.jsonl, one line for the mean of a few steps, and any trackers beside it.

    how: options of training, which trackers store beside the recipe.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        accelerator: "Accelerator",
        track: tuple[str, ...],
        how: Mapping[str, Any] = {},
    ) -> None:
        self.every = line_every(trainer.recipe.steps)
        self.batch, self.accelerator, self.track = trainer.recipe.batch, accelerator, track
        self.path = folder / "metrics.jsonl"
        self.losses: list[float] = []
        self.mark = (time.perf_counter(), trainer.step)
        with storage(self.path):
            kept = [line for line in read_metrics(folder) if line["step"] <= trainer.step]
            write_file(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.file = append_to(self.path)  # held for the whole run
        before = getattr(trainer.data, "cpu_seconds", 0.0)  # of a student's data, its teacher's trajectories
        self.spent = (kept[-1].get("cpu_seconds", 0.0) if kept else before) - time.process_time()
        if track:
            begin_tracking(accelerator, track, folder, trainer.recipe.to_config() | dict(how))

    def start(self, held: float) -> None:
        """A line for step 0: the held-out loss before training."""
        self._write({"step": 0, "loss": None, "grad_norm": None, "lr": 0.0, "examples_per_second": 0.0,
                     "cpu_seconds": round(self.spent + time.process_time(), 3), HELD: held})  # fmt: skip

    def __call__(self, record: Any, held: float | None = None) -> None:
        """One step; held: its held-out loss, where that was measured."""
        if not record.skipped:
            self.losses.append(record.loss)
        if record.step % self.every and held is None:
            return
        now = time.perf_counter()
        line = {
            "step": record.step,
            "loss": math.fsum(self.losses) / len(self.losses) if self.losses else None,
            "grad_norm": record.grad_norm if math.isfinite(record.grad_norm) else None,
            "lr": record.lr,
            "examples_per_second": round((record.step - self.mark[1]) * self.batch / (now - self.mark[0]), 1),
            "cpu_seconds": round(self.spent + time.process_time(), 3),
        } | ({} if held is None else {HELD: held})
        self.losses, self.mark = [], (now, record.step)
        self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        with storage(self.path):
            self.file.write((json.dumps(line) + "\n").encode())
        if self.track:
            shown = {_SHOWN.get(k, f"train/{k}"): v for k, v in line.items() if v is not None and k != "step"}
            self.accelerator.log(shown, step=line["step"])

    def images(self, files: Mapping[Path, bytes], step: int) -> None:
        """Show trackers the sheets of samples among a snapshot's files; there are none of points."""
        for data in [data for file, data in files.items() if file.suffix == ".png"] if self.track else []:
            with Image.open(io.BytesIO(data)) as sheet:
                picture = sheet.convert("RGB")
            for tracker in self.accelerator.trackers:
                if tracker.name == "tensorboard":
                    tracker.log_images({"samples": np.asarray(picture)[None]}, step=step, dataformats="NHWC")
                elif tracker.name == "wandb":
                    tracker.log_images({"samples": [picture]}, step=step)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.track:
            self.accelerator.end_training()


_SHOWN = {HELD: "validation/loss"}  # names of a line's values with trackers, where it isn't train/…


def begin_tracking(
    accelerator: "Accelerator", track: Sequence[str], folder: Path, config: Mapping[str, Any] = {}
) -> None:
    """Begin to log to trackers, as a run of its folder's name with its recipe and options; InputError where one can't.

    Of tensorboard the folder itself, in which it writes, is the name. config: the recipe and options, by name.
    """
    values = {
        name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in config.items()
    }
    named = {name: {"name": folder.resolve().name} for name in track if name != "tensorboard"}
    try:
        accelerator.init_trackers(TRACKED, config=values or None, init_kwargs=named)
    except Exception as error:  # each tracker has its own
        raise InputError(f"{', '.join(track)} can't be used: {' '.join(str(error).split())}") from error


def track_evaluation(folder: Path, track: tuple[str, ...], step: int, values: Mapping[str, float]) -> None:
    """Log a run's metrics to trackers, as evaluation/…, at the step of its checkpoint.

    values: the metrics by name; those that aren't finite are left out.
    """
    accelerator = accelerate(track=track, folder=folder, device="cpu")
    begin_tracking(accelerator, track, folder)
    finite = {f"evaluation/{name}": float(value) for name, value in values.items() if math.isfinite(value)}
    accelerator.log(finite, step=step)
    accelerator.end_training()


# What a line of metrics.jsonl holds, and as what.
_LINE: dict[str, tuple[type, ...]] = {
    "step": (int,), "loss": (int, float, type(None)), "grad_norm": (int, float, type(None)), "lr": (int, float),
    "examples_per_second": (int, float), "cpu_seconds": (int, float),
}  # fmt: skip


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds and (value is None or abs(value) < 2**63)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl up to one that is damaged or foreign: a kill cuts the last one short."""
    path = folder / "metrics.jsonl"
    lines: list[dict[str, Any]] = []
    for text in read_file(path).splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not all(_fits(line.get(name, ""), kinds) for name, kinds in _LINE.items()):
            break
        if not _fits(line.get(HELD), (int, float, type(None))):
            break
        lines.append(line)
    return lines


def read_losses(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that have a loss: not that of step 0, nor of steps that were all skipped."""
    return [line for line in read_metrics(folder) if line["loss"] is not None]
