"""Malformed input in bulk: each gives clear errors or is handled; none a traceback, a hang, or another run in silence.

`FUZZ_EXAMPLES=5000 python -m pytest tests/fuzz` tries so many of each kind, other ones each time.
"""
