"""The article's own programs beside our rebuild of them: the same frames to both, and what came back, recorded."""
