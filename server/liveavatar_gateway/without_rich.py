"""Import of structlog and httpx without rich, for a faster start.

Both load rich wherever it is installed: for tracebacks, and for a command line, that the gateway does not use.
Imported before all modules that import one of them.
"""

import sys

if not {"structlog", "httpx", "rich"} & set(sys.modules):
    # Python's mark for a module that cannot be imported; both libraries then do without.
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import httpx  # noqa: F401
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
