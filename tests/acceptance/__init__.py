"""Long proofs of whole areas: `make acceptance AREA=auth`."""
