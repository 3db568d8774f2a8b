"""What an instructor does with the kit: release it, collect submissions, grade a class."""
