"""Weights: checkpoints, folders, the Hub, training runs, 8 bits, and the source that a user names."""
