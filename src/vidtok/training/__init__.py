"""Training of video tokenizers: the objective, the data, the loop."""
