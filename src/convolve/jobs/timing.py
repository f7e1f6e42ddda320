"""Milliseconds per layer, measured: torch's operators and ours, in turn, on this machine."""
