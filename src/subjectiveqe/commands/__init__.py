"""The commands of `sqe`; `cli` puts them together."""
