"""How a lab is graded: tests as they are written, what they expect, and the verdict."""
