"""Replay of a bad batch: which clip, which module and which direction made a loss or gradient NaN or infinite."""
