"""Runs: arguments, trainer, folders, checkpoints and what they log."""
