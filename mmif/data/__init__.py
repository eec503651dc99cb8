"""Real photographs for training and evaluation: packing them, reading them back, and drawing holes."""
