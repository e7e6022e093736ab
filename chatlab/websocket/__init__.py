"""RFC 6455 and RFC 7692 implemented without I/O: the handshake, the frames, and the connection that uses both."""
