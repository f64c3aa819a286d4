"""From any picture to a better one: tiles, runtimes, files; no PyTorch here."""
