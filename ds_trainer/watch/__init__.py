"""Notices ranks that die or stall, and says which one it was and where it stood."""
