"""Losses, which training minimises.

denoise: |ŷ - (a x₀ + b ε)|², the loss of DDPM, flow matching and EDM, and the weights of its times.
stable: the same targets with less noise in them, averaged over the batch.

A loss is handed a denoiser and uses its path and row; it imports nothing of the core.
"""
