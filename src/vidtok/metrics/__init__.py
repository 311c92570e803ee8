"""How well a reconstruction matches its video. A metric knows pictures and video as tensors, and no model."""
