"""ebbtide export RUN: a folder to share, or an upload to the Hugging Face hub."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import InputError
from ..specs import pick
from .arguments import ITS_OWN, Flag, Weights, given, hint, if_given, opened, parse, tell, within

if TYPE_CHECKING:
    from ..training.trained import Trained

__all__ = ["Export", "run"]


@dataclass(frozen=True)
class Export:
    """Write weights, config, model card and manifest: what `ebbtide sample FOLDER` and from_pretrained read; or what
    needs no ebbtide: a folder for diffusers, an ONNX graph."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    built: tyro.conf.OmitArgPrefixes[Weights] = field(default_factory=Weights)
    out: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("none")] = ""
    """Folder to write."""
    push: Annotated[str, hint("nowhere")] = ""
    """Also upload to this hub repository, user/name; log in with `hf auth login` first."""
    decoder: Annotated[str, hint("its own")] = ""
    """Autoencoder whose decoder takes the run's place; of the same encoder, as --loss sharpen trains."""
    license: Annotated[str, hint("none")] = ""
    """The weights' licence, for the model card; as the hub writes it: apache-2.0, cc-by-4.0, …"""
    format: Annotated[str, tyro.conf.arg(name="for"), hint("ebbtide")] = "ebbtide"
    """The library that is to run it: ebbtide, diffusers or onnx."""
    onnx: Flag = False
    """Short for --for onnx: --out is a file, such as model.onnx."""
    sampler: Annotated[str, hint("the run's, or the simplest")] = ""
    """For diffusers: the sampler whose scheduler the folder holds; for onnx, of samples."""
    steps: Annotated[int, hint("the run's")] = ITS_OWN
    """For diffusers: steps of its example; for onnx: samples in these steps, not the network alone."""
    private: Flag = False
    """Make the repository private."""
    overwrite: Flag = False
    """Replace the folder if it exists."""


def run(argv: Sequence[str]) -> None:
    """Parse, write, upload."""
    args = parse(Export, argv, "export")
    pick(WRITERS, args.format, "--for")
    if not (args.out or args.push):
        raise InputError("Say where to: --out FOLDER, --push user/name, or both.")
    if args.private and not args.push:
        raise InputError("--private is for the repository that --push names.")
    if args.onnx:
        if given(args, "format") and args.format != "onnx":
            raise InputError(f"--onnx is short for --for onnx; leave it or --for {args.format} out.")
        args = replace(args, format="onnx")
    if args.format == "ebbtide" and (idle := given(args, "sampler", "steps")):
        raise InputError(f"{idle[0]} is for --for diffusers or --for onnx.")
    if args.format == "onnx" and args.license:
        raise InputError("--license is for a model card, and an ONNX file has none.")
    if args.format != "ebbtide" and args.push:
        raise InputError(f"--push uploads what ebbtide reads; upload a folder for {args.format} with `hf upload`.")
    if args.steps != ITS_OWN:
        within(args, steps=(1, 1000))
    trained = opened(args.run, **vars(args.built))
    WRITERS[args.format](args, trained.with_decoder(args.decoder) if args.decoder else trained)


def _for_ebbtide(args: Export, trained: "Trained") -> None:
    from ..interop.hub import push_to_hub

    if args.out:
        tell(trained.save_pretrained(args.out, overwrite=args.overwrite, license=args.license), file=sys.stdout)
    if args.push:
        tell(push_to_hub(trained, args.push, private=args.private, license=args.license), file=sys.stdout)


def _for_diffusers(args: Export, trained: "Trained") -> None:
    from ..interop.pipelines import save_pipeline

    made = save_pipeline(
        trained,
        args.out,
        sampler=args.sampler,
        steps=if_given(args.steps),
        license=args.license,
        overwrite=args.overwrite,
    )
    tell(f"{made.folder}: {made.pipeline} with {made.scheduler}, {made.steps} steps", file=sys.stdout)


def _for_onnx(args: Export, trained: "Trained") -> None:
    from ..interop.onnx import save_onnx

    made = save_onnx(trained, args.out, sampler=args.sampler, steps=if_given(args.steps), overwrite=args.overwrite)
    about = f"{', '.join(made.inputs)} → {made.output}, within {made.difference:.0e} of torch in onnxruntime"
    tell(f"{made.file}: {about}", file=sys.stdout)


WRITERS: dict[str, Callable[[Export, "Trained"], None]] = {
    "ebbtide": _for_ebbtide,
    "diffusers": _for_diffusers,
    "onnx": _for_onnx,
}
