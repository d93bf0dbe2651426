"""The gRPC side: servicers that translate between the contract and living sessions."""
