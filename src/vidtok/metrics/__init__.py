"""Metrics of a reconstruction against its video. They know pictures and video as tensors, and no model."""
