"""Metrics of a reconstruction against its video. They take pictures and video as tensors, and know no model."""
