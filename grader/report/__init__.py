"""What a grading writes: text for people, files for machines, a learner's progress."""
