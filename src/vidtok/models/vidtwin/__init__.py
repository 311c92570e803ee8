"""VidTwin (arXiv 2412.17726): the second family, whose latent keeps structure and dynamics apart."""
