"""Paired stores: made from clean pictures, checked, and read as training patches."""
