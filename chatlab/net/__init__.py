"""The asyncio side of a server: one end of a WebSocket, HTTP beside it, and the libraries' parts that need a fence."""
