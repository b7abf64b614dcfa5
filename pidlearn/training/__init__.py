"""The training loop and everything around it: optimisers, checkpoints, processes, logs."""
