"""What `make` calls for a learner."""
