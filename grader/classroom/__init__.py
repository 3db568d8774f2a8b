"""What an instructor does with the kit: release it, collect hand-ins, grade a class."""
