"""What the exercises of several lessons need to be checked: rooms, members, streams, a Redis, a chat."""
