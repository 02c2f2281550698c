"""Codecs: how data is seen by a denoiser, fitted, stored with a run and undone on sampling."""
