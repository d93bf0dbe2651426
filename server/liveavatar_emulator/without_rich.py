"""Import of structlog without rich, for a faster start: the emulator prints no tracebacks that rich would draw.

Imported before all modules that import structlog, which loads rich wherever it is installed.
"""

import sys

if "structlog" not in sys.modules and "rich" not in sys.modules:
    # Python's mark for a module that cannot be imported; structlog then does without.
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
