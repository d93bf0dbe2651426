"""Attacks on a gateway, each beside a caller that talks and measures what it notices of them."""
