"""Hostile modules: each tries to get points without doing its exercise, or to attack the grader."""
