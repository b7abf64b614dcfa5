"""What is learned: networks as solutions of an equation."""
