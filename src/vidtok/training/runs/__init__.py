"""Runs: arguments, trainer, folders, checkpoints, progress and pictures."""
