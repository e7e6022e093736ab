"""RFC 6455 and RFC 7692 by hand, without I/O: the handshake, the frames, the connection that joins them."""
