"""The training objective and its networks."""
