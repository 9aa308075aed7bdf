"""The gRPC services over HTTP as the Connect protocol has them (https://connectrpc.com/docs/protocol), with JSON."""
