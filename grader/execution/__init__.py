"""Running a program under limits, on this machine or in the lab VM."""
