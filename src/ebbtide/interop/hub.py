"""The Hugging Face hub: upload and download."""

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EbbtideError, InputError
from ..training import checkpoint
from ..training.storage import EXPORTED

if TYPE_CHECKING:
    from ..training.trained import Trained

__all__ = ["download", "push_to_hub", "upload"]


def download(repository: str, revision: str | None = None, patterns: Collection[str] = EXPORTED) -> Path:
    """Fetch a repository's snapshot; the files are then checked against its manifest like any folder.

    revision: a branch, tag or commit; the newest on the main branch unless given. patterns: of the files to fetch.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except RevisionNotFoundError as error:
        raise InputError(f"{repository!r} has no revision {revision!r}: a branch, a tag or a commit.") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"There is no folder {repository!r} and no such repository you may read.") from error
    except Exception as error:  # the hub's own, or those of the library it speaks HTTP with, which has changed
        raise InputError(
            f"{repository!r} is no folder here, and is not available from the hub: {_line(error)}"
        ) from error


def push_to_hub(
    trained: "Trained", repository: str, *, private: bool = False, token: str | None = None, license: str = ""
) -> str:
    """Upload what `Trained.save_pretrained` writes to huggingface.co/<repository>; returns its address."""
    return upload(trained.export(repository, license), repository, private=private, token=token)


def upload(files: Mapping[str, checkpoint.Content], repository: str, *, private: bool, token: str | None) -> str:
    """Create the repository if need be and upload an exported folder as one commit. files: contents by name."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        checkpoint.write_folder(folder, files)
        try:
            url = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload with ebbtide")
        except Exception as error:
            raise EbbtideError(f"{repository!r} can't be uploaded to the hub: {_line(error)}") from error
    return str(url)


def _line(error: Exception) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
