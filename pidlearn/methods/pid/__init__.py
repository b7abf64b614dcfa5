"""Physics-informed distillation (Tee et al. 2024, arXiv 2411.08378)."""
