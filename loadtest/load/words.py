"""Values as people read them."""


def format_ms(value_ms: float) -> str:
    """Such as "3.42 ms", "13.7 ms", "137 ms" or "2.50 s": three digits are all that a histogram knows."""
    if value_ms >= 1000:
        return f"{value_ms / 1000:.2f} s"
    digits = 0 if value_ms >= 100 else 1 if value_ms >= 10 else 2
    return f"{value_ms:.{digits}f} ms"
