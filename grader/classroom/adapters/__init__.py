"""The kit on the autograders that schools have."""
