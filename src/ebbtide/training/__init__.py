"""Training: `trainer.py` is the loop, `checkpoint.py` the folder format, `run.py` what survives a crash around them."""
