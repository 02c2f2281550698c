"""The Hugging Face hub: model cards, upload, download."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EbbflowError, InputError

if TYPE_CHECKING:
    from ..recipes import Recipe
    from ..trained import Trained


def model_card(trained: "Trained") -> str:
    """README.md of an exported model: what it is, how it was trained, how to sample from it."""
    from ..trained import describe_data

    recipe, parameters = trained.recipe, sum(p.numel() for p in trained.denoiser.parameters())
    labels = f"conditional on {', '.join(trained.classes)}" if recipe.conditional else "unconditional"
    return f"""---
library_name: ebbflow
license: apache-2.0
tags: [ebbflow, diffusion, flow-matching]
---
# {recipe.path.partition(":")[0]} path, {recipe.target} target

A generative model of {describe_data(recipe)} ({" × ".join(map(str, trained.shape))}, {labels}), trained with
[ebbflow](https://github.com/ebbflow/ebbflow).

| | |
|---|---|
| path | `{recipe.path}` |
| target | `{recipe.target}` |
| network | `{recipe.network}`, {parameters:,} parameters, EMA weights |
| training | {trained.step:,} steps of {recipe.batch:,} examples, seed {recipe.seed} |
| data transform | {"standardised per column; undone on sampling" if trained.transform else "none"} |
| time | t = 0 is data, t = 1 is noise |
| default sampler | `{recipe.sampler}` on the `{recipe.grid}` grid, {recipe.sample_steps} steps |

```python
import ebbflow

trained = ebbflow.from_pretrained("user/name")  # this repository, or this folder
x = trained.sample(1000, seed=0)
```

It reproduces the distribution of its training data, with whatever biases that has. Any sampler of ebbflow runs on it.

{_citations(recipe)}"""


def _citations(recipe: "Recipe") -> str:
    """BibTeX of the named recipe with this path and coupling, if it is one."""
    from ..recipes import CITATIONS, RECIPES

    for name, row in RECIPES.items():
        if (row().path.partition(":")[0], row().coupling) == (recipe.path.partition(":")[0], recipe.coupling):
            return f"```bibtex\n{CITATIONS[name]}\n```\n"
    return ""


def download(repository: str) -> Path:
    """Fetch a repository's snapshot; the files are then checked against its manifest like any folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repository))
    except RepositoryNotFoundError as error:
        raise InputError(f"There is no folder and no hub repository {repository!r}.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"{repository!r} is no folder here, and the hub can't be reached to look for it.") from error


def upload(trained: "Trained", repository: str, *, private: bool, token: str | None) -> str:
    """Create the repository if need be and upload an exported folder as one commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = trained.save_pretrained(Path(scratch) / "model")
        try:
            url = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload with ebbflow")
        except (HfHubHTTPError, OSError, ValueError) as error:
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise EbbflowError(f"The hub refused {repository!r}: {first_line}") from error
    return str(url)
