"""Decoders of their own: modules that any family's latents can be decoded with, in place of the model's decoder."""
