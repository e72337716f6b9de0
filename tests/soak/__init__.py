"""The soak: runs that are killed, stopped, damaged and starved, again and again, and must come to the same end.

`make soak`, or `PYTHONPATH=tests python -m soak --help`.
"""
