"""Samplers that leave the grid's own row of steps.

dopri5: Dormand-Prince 5(4), which chooses its steps by their error.
restart: jumps back up to more noise and walks down again (Xu et al. 2023).
predictor_corrector: stays at a time for Langevin steps (Song et al. 2021).
"""
