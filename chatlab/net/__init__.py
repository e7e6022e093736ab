"""The asyncio side of a server: the endpoint of a WebSocket, HTTP, and all uses of undocumented library interfaces."""
