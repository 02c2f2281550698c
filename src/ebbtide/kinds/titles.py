"""The title of a figure of samples."""

from ..training.trained import Trained

__all__ = ["title_of"]


def title_of(trained: Trained, how: str = "", n: int = 0) -> str:
    """The data, the method, how samples were drawn, and their number.

    how: the sampler and its steps. n: samples.
    """
    recipe = trained.recipe
    method = f"{recipe.path.partition(':')[0]} path, {recipe.target.partition(':')[0]} target"
    return " · ".join(filter(None, (recipe.shared().data_named, method, how, f"n = {n:,}" if n else "")))
