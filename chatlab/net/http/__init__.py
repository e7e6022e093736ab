"""HTTP for the servers: aiohttp on our own sockets, and what is checked before a request is served."""
