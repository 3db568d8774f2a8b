"""What shows that the kit itself is right."""
