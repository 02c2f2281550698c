"""A checkpoint that several processes write: each its piece of the training state, the first one everything else.

The pieces are torch.distributed.checkpoint's, as safetensors, in which it notes where each part of a tensor belongs;
any number of processes can read them, each what it needs. Nothing is pickled. As with one process the folder is there
when it is whole, and not before: its manifest comes last, then the name.
"""

import json
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import InputError, StorageError
from ..files import writing_folder
from . import checkpoint
from .checkpoint import PIECES, Content, Entry
from .devices import all_there, together

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["read_pieces", "write_pieces"]


def write_pieces(
    target: Path, files: Mapping[str, Content], state: Mapping[str, Tensor], accelerator: "Accelerator"
) -> None:
    """Write a checkpoint's files, and a state of which each process has rows; all of them have to call this.

    target: the folder of the checkpoint.
    """
    count, main = accelerator.num_processes, accelerator.is_main_process
    with all_there(count), ExitStack() as stack:
        named = together(lambda: stack.enter_context(writing_folder(target)) if main else None, count)
        folder = named[0]
        assert folder is not None
        entries = together(lambda: _save(folder / PIECES, state, count), count)
        manifest = {f"{PIECES}/{name}": entry for own in entries for name, entry in own.items()}

        def whole() -> None:
            for name, content in files.items():
                if (entry := _written(folder / name, content, main)) is not None:
                    manifest[name] = entry
            if main:
                checkpoint.write_manifest(folder, manifest)
                stack.close()

        together(whole, count)


def _written(path: Path, content: Content, main: bool) -> Entry | None:
    """Write a file in the first process; the others hand over their rows of its tensors, even if it can't."""
    parts = iter([content] if isinstance(content, bytes) else checkpoint.serialized(content))
    try:
        return checkpoint.write_hashed(path, parts) if main else None
    except OSError as error:
        raise StorageError(
            f"Can't write {path.parent}: {error.strerror or error}; what was saved before is intact."
        ) from error
    finally:
        for _ in parts:
            pass


def _save(folder: Path, state: Mapping[str, Tensor], count: int) -> dict[str, Entry]:
    """Write this process's rows of a state, tensor by tensor, and return the file's name and entry."""
    from torch.distributed import checkpoint as distributed
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter

    written: dict[str, Entry] = {}

    class Writer(HuggingFaceStorageWriter):  # whose own way holds all rows twice more, and can't hash on the way
        def write_data(self, plan: Any, planner: Any) -> Any:
            tensors = {item.index.fqn: planner.resolve_data(item) for item in plan.items}
            places = {item.index.fqn: {"saved_offsets": list(item.tensor_data.chunk.offsets)} for item in plan.items}
            about = {"DCP_SHARDING_INFO": json.dumps(places), "DCP_VERSION": "1.0", "format": "pt"}
            name = f"{plan.storage_data['shard_index']:05d}-of-{count:05d}.safetensors"
            if tensors:
                written[name] = checkpoint.write_hashed(folder / name, checkpoint.serialized(tensors, about))
            done: torch.futures.Future[list[Any]] = torch.futures.Future()
            done.set_result([])
            return done

    try:
        distributed.save(dict(state), storage_writer=Writer(str(folder), save_distributed=True))
    except CheckpointException as error:
        failed = next(iter(error.failures.values()))[0]
        reason = getattr(failed, "strerror", None) or failed
        raise StorageError(f"Can't write {folder.parent}: {reason}; what was saved before is intact.") from error
    return written


def read_pieces(folder: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state that is in pieces: of those in `like` this process's rows, however many wrote them."""
    from torch.distributed import checkpoint as distributed
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader

    reader = HuggingFaceStorageReader(str(folder))
    try:
        held: dict[str, Any] = dict(reader.read_metadata().state_dict_metadata)
        for name, own in like.items():
            if name not in held or held[name].size != own.shape or held[name].properties.dtype != own.dtype:
                raise InputError(
                    f"{folder} doesn't fit this run: its tensor {name} is missing, or of another shape or kind."
                )
        state = {name: torch.empty_like(own) for name, own in like.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            distributed.load(state, storage_reader=reader, no_dist=True)
    except (CheckpointException, SafetensorError, OSError) as error:
        raise InputError(f"{folder} can't be read: {' '.join(str(error).split())[:200]}") from error
    return state
