"""Inverse problems: posterior sampling, RePaint, and chunks that continue one another."""
