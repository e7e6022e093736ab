"""Set up logging, and limit how often a line is repeated."""
