"""Every estimator of the registry on the same problems, at the same cost."""
