"""The residual along a student's trajectories, and the error at the endpoint."""
