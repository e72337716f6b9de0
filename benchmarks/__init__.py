"""How fast ds_trainer is beside its peers, on the machine at hand: `python -m benchmarks` (`make bench`)."""
