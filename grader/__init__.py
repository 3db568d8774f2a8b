"""The tools of Mini-KVM Labs: building, running, grading, and the kit's own tests."""
