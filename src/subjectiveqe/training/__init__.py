"""Training in two stages."""
