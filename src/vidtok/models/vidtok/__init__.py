"""The VidTok family (arXiv 2412.13061)."""
