"""BibTeX of the papers behind each recipe."""

_DDPM = """@inproceedings{ho2020ddpm,
  title     = {Denoising Diffusion Probabilistic Models},
  author    = {Ho, Jonathan and Jain, Ajay and Abbeel, Pieter},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  note      = {arXiv:2006.11239}
}"""
_FLOW = """@inproceedings{lipman2023flow,
  title     = {Flow Matching for Generative Modeling},
  author    = {Lipman, Yaron and Chen, Ricky T. Q. and Ben-Hamu, Heli and Nickel, Maximilian and Le, Matt},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2210.02747}
}
@inproceedings{liu2023rectified,
  title     = {Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow},
  author    = {Liu, Xingchao and Gong, Chengyue and Liu, Qiang},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  note      = {arXiv:2209.03003}
}"""
_EDM = """@inproceedings{karras2022edm,
  title     = {Elucidating the Design Space of Diffusion-Based Generative Models},
  author    = {Karras, Tero and Aittala, Miika and Aila, Timo and Laine, Samuli},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  note      = {arXiv:2206.00364}
}"""
_LOGIT_NORMAL = """@inproceedings{esser2024scaling,
  title     = {Scaling Rectified Flow Transformers for High-Resolution Image Synthesis},
  author    = {Esser, Patrick and Kulal, Sumith and Blattmann, Andreas and Entezari, Rahim and M{\\"u}ller, Jonas and
               Saini, Harry and Levi, Yam and Lorenz, Dominik and Sauer, Axel and Boesel, Frederic and
               Podell, Dustin and Dockhorn, Tim and English, Zion and Rombach, Robin},
  booktitle = {International Conference on Machine Learning},
  year      = {2024},
  note      = {arXiv:2403.03206}
}"""
_BRIDGE = """@article{albergo2023stochastic,
  title   = {Stochastic Interpolants: A Unifying Framework for Flows and Diffusions},
  author  = {Albergo, Michael S. and Boffi, Nicholas M. and Vanden-Eijnden, Eric},
  journal = {arXiv:2303.08797},
  year    = {2023}
}"""
_OT = """@article{tong2024otcfm,
  title   = {Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport},
  author  = {Tong, Alexander and Fatras, Kilian and Malkin, Nikolay and Huguet, Guillaume and Zhang, Yanlei and
             Rector-Brooks, Jarrid and Wolf, Guy and Bengio, Yoshua},
  journal = {Transactions on Machine Learning Research},
  year    = {2024},
  note    = {arXiv:2302.00482}
}"""
_PI0 = """@article{black2024pi0,
  title   = {π₀: A Vision-Language-Action Flow Model for General Robot Control},
  author  = {Black, Kevin and Brown, Noah and Driess, Danny and Esmail, Adnan and Equi, Michael and Finn, Chelsea and
             Fusai, Niccolo and Groom, Lachy and Hausman, Karol and Ichter, Brian and others},
  journal = {arXiv:2410.24164},
  year    = {2024}
}"""
_DIFFUSION_POLICY = """@inproceedings{chi2023diffusion,
  title     = {Diffusion Policy: Visuomotor Policy Learning via Action Diffusion},
  author    = {Chi, Cheng and Feng, Siyuan and Du, Yilun and Xu, Zhenjia and Cousineau, Eric and Burchfiel, Benjamin
               and Song, Shuran},
  booktitle = {Robotics: Science and Systems},
  year      = {2023},
  note      = {arXiv:2303.04137}
}"""

CITATIONS: dict[str, str] = {
    "ddpm": _DDPM,
    "flow": _FLOW,
    "edm": _EDM,
    "bridge": _BRIDGE,
    "ot-flow": _OT,
    "ddpm-images": _DDPM,
    "flow-images": f"{_FLOW}\n{_LOGIT_NORMAL}",
    "edm-images": _EDM,
    "flow-policy": f"{_PI0}\n{_DIFFUSION_POLICY}",
    "pi0": _PI0,
    "flow-policy-pusht": f"{_PI0}\n{_DIFFUSION_POLICY}",
    "diffusion-policy-pusht": _DIFFUSION_POLICY,
    "pi0-pusht": _PI0,
    "flow-policy-aloha-transfer": f"{_PI0}\n{_DIFFUSION_POLICY}",
    "flow-policy-aloha-insertion": f"{_PI0}\n{_DIFFUSION_POLICY}",
    "pi0-aloha-transfer": _PI0,
    "pi0-aloha-insertion": _PI0,
}
