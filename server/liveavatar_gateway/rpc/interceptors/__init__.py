"""Server interceptors, outermost first: metrics, errors, bounds. Authentication belongs behind errors."""
