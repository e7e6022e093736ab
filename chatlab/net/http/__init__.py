"""HTTP for the servers: aiohttp on our own sockets, and the checks made before a request is served."""
