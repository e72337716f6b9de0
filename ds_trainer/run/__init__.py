"""A run: its directory, what it records and saves there, and what it continues from."""
