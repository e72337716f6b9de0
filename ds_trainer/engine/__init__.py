"""What knows DeepSpeed: its JSON config, the engine that it builds, and where it keeps weights."""
