"""Training steps at the paper's sizes on one GPU: speed, memory and rounding."""
