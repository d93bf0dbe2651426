"""What integration tests stand on: real processes, and a caller made of bare gRPC stubs."""
