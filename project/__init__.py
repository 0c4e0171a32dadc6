"""Plan, train and compare hybrid-parallel Mixture-of-Experts models."""
