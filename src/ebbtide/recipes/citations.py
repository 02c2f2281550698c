"""BibTeX of the papers that recipes name in their docstrings."""

import inspect
import re
from collections.abc import Callable
from typing import Any

__all__ = ["PAPERS", "cited", "papers"]

PAPERS: dict[str, str] = {
    "2006.11239": """@inproceedings{ho2020ddpm,
  title     = {Denoising Diffusion Probabilistic Models},
  author    = {Ho, Jonathan and Jain, Ajay and Abbeel, Pieter},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  note      = {arXiv:2006.11239}
}""",
    "2104.07636": """@article{saharia2021sr3,
  title   = {Image Super-Resolution via Iterative Refinement},
  author  = {Saharia, Chitwan and Ho, Jonathan and Chan, William and Salimans, Tim and Fleet, David J. and
             Norouzi, Mohammad},
  journal = {arXiv:2104.07636},
  year    = {2021}
}""",
    "2112.10752": """@inproceedings{rombach2022latent,
  title     = {High-Resolution Image Synthesis with Latent Diffusion Models},
  author    = {Rombach, Robin and Blattmann, Andreas and Lorenz, Dominik and Esser, Patrick and Ommer, Bj{\"o}rn},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2022},
  note      = {arXiv:2112.10752}
}""",
    "2210.02747": """@inproceedings{lipman2023flow,
  title     = {Flow Matching for Generative Modeling},
  author    = {Lipman, Yaron and Chen, Ricky T. Q. and Ben-Hamu, Heli and Nickel, Maximilian and Le, Matt},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2210.02747}
}""",
    "2209.03003": """@inproceedings{liu2023rectified,
  title     = {Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow},
  author    = {Liu, Xingchao and Gong, Chengyue and Liu, Qiang},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2209.03003}
}""",
    "2206.00364": """@inproceedings{karras2022edm,
  title     = {Elucidating the Design Space of Diffusion-Based Generative Models},
  author    = {Karras, Tero and Aittala, Miika and Aila, Timo and Laine, Samuli},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  note      = {arXiv:2206.00364}
}""",
    "2403.03206": """@inproceedings{esser2024scaling,
  title     = {Scaling Rectified Flow Transformers for High-Resolution Image Synthesis},
  author    = {Esser, Patrick and Kulal, Sumith and Blattmann, Andreas and Entezari, Rahim and M{\\"u}ller, Jonas and
               Saini, Harry and Levi, Yam and Lorenz, Dominik and Sauer, Axel and Boesel, Frederic and
               Podell, Dustin and Dockhorn, Tim and English, Zion and Rombach, Robin},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  note      = {arXiv:2403.03206}
}""",
    "2303.08797": """@article{albergo2023stochastic,
  title   = {Stochastic Interpolants: A Unifying Framework for Flows and Diffusions},
  author  = {Albergo, Michael S. and Boffi, Nicholas M. and Vanden-Eijnden, Eric},
  journal = {arXiv:2303.08797},
  year    = {2023}
}""",
    "2302.00482": """@article{tong2024otcfm,
  title   = {Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport},
  author  = {Tong, Alexander and Fatras, Kilian and Malkin, Nikolay and Huguet, Guillaume and Zhang, Yanlei and
             Rector-Brooks, Jarrid and Wolf, Guy and Bengio, Yoshua},
  journal = {Transactions on Machine Learning Research},
  year    = {2024},
  note    = {arXiv:2302.00482}
}""",
    "2410.24164": """@article{black2024pi0,
  title   = {π₀: A Vision-Language-Action Flow Model for General Robot Control},
  author  = {Black, Kevin and Brown, Noah and Driess, Danny and Esmail, Adnan and Equi, Michael and Finn, Chelsea and
             Fusai, Niccolo and Groom, Lachy and Hausman, Karol and Ichter, Brian and others},
  journal = {arXiv:2410.24164},
  year    = {2024}
}""",
    "2303.04137": """@inproceedings{chi2023diffusion,
  title     = {Diffusion Policy: Visuomotor Policy Learning via Action Diffusion},
  author    = {Chi, Cheng and Feng, Siyuan and Du, Yilun and Xu, Zhenjia and Cousineau, Eric and Burchfiel, Benjamin
               and Song, Shuran},
  booktitle = {Robotics: Science and Systems},
  year      = {2023},
  note      = {arXiv:2303.04137}
}""",
    "2410.12557": """@inproceedings{frans2025shortcut,
  title     = {One Step Diffusion via Shortcut Models},
  author    = {Frans, Kevin and Hafner, Danijar and Levine, Sergey and Abbeel, Pieter},
  booktitle = {International Conference on Learning Representations},
  year      = {2025},
  note      = {arXiv:2410.12557}
}""",
    "2505.13447": """@inproceedings{geng2025meanflow,
  title     = {Mean Flows for One-step Generative Modeling},
  author    = {Geng, Zhengyang and Deng, Mingyang and Bai, Xingjian and Kolter, J. Zico and He, Kaiming},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2025},
  note      = {arXiv:2505.13447}
}""",
}


def papers(recipe: Callable[..., Any]) -> list[str]:
    """The arXiv ids in a recipe's docstring, each once, in order."""
    return list(dict.fromkeys(re.findall(r"arXiv:(\d{4}\.\d{4,5})", inspect.getdoc(recipe) or "")))


def cited(recipe: Callable[..., Any]) -> str:
    """BibTeX of the papers behind a recipe; "" for one that names none. One that PAPERS lacks is cited by its id."""
    return "\n".join(PAPERS.get(paper, _by_id(paper)) for paper in papers(recipe))


def _by_id(paper: str) -> str:
    return f"@misc{{arxiv{paper.replace('.', '')},\n  note = {{arXiv:{paper}}}\n}}"
