"""Other processes: what they cost, and functions of a cell that run as one."""
