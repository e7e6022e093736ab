"""The endpoint: HTTP in, connections out. WebSocket, SockJS, the page, health and metrics."""
