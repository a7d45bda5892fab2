"""A request in, frames out. No sockets."""
