"""Training jobs: described by a visitor, run in a worker process, reported back to the page."""
