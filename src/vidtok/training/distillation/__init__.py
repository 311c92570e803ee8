"""Training of a decoder of its own for the latents of a model that stays as it is, its teacher."""
