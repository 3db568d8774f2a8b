"""What a grading leaves behind: text for a person, files for machines, a learner's progress."""
