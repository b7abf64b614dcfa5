"""What is solved: equations, time grids, solvers, and the problems that teachers pose."""
