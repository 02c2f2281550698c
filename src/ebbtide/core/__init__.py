"""The one idea: paths, targets and denoisers; times, couplings, guidance; randomness."""
