"""The server: gRPC services, REST, the console, and the one place where everything is put together."""
