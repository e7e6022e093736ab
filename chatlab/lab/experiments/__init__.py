"""The longer experiments of the lessons, one module for each: what a cell of ten lines would have no room for."""
