"""What a notebook holds: engines, servers and clients to start and stop from cells, panels, traces, verdicts."""
