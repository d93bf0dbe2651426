"""What operators see: metrics, and the HTTP port that serves them. Knows the core; everybody above may use it."""
