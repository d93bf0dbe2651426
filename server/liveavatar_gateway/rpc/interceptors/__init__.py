"""Server interceptors, outermost first: metrics, errors, authentication, bounds."""
