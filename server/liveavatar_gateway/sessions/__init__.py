"""Sessions that live in this process: each driven by one task, all found through one directory."""
