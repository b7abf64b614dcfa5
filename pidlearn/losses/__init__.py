"""What methods share: distances, time sampling and weights."""
