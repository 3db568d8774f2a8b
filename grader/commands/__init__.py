"""The commands that learners run through `make`."""
