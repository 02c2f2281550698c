"""Exact answers and what is measured against them: oracles, certificates, likelihood, encoding, fitted solvers."""
