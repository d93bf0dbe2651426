"""Entry point of `locust -f loadtest/locustfile.py`.

By hand it is plain Locust: `--host`, `-u`, `-r`, `-t`, class names and the web page do what they always do, and
each user holds one conversation after the other. With `LOAD_SCENARIO` it plays that scenario's schedule of
arrivals, as `python -m load run` does. See docs/load-testing.md.
"""

import os
import sys
from pathlib import Path

if os.environ.get("LOCUST_SKIP_MONKEY_PATCH") != "1":
    # Streams run on a native event loop, which gevent's patches hang, and they were made when Locust was imported.
    unpatched = {**os.environ, "LOCUST_SKIP_MONKEY_PATCH": "1", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], unpatched)
# Before gRPC is imported: its newer client costs about a tenth more CPU per message.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
sys.path[:0] = [str(Path(__file__).resolve().parent)]

import gevent.monkey  # noqa: E402
from locust import events  # noqa: E402

from load.behaviours import expected_s  # noqa: E402
from load.closed_loop import ClosedLoop  # noqa: E402
from load.conductor import Conductor  # noqa: E402
from load.run_config import InvalidRunConfig, RunConfig  # noqa: E402
from load.scenarios import ordered  # noqa: E402
from load.shapes import shape_of  # noqa: E402
from load.timeline import TimelineError  # noqa: E402
from load.users import Run, users_of  # noqa: E402

# Only these two: Locust waits for its workers with `time.sleep` and `os.waitpid`. With the first unpatched they
# could not register meanwhile, with the second it would wait for processes that gevent has seen off already.
gevent.monkey.patch_time()
gevent.monkey.patch_os()

try:
    _order = RunConfig.from_environment(os.environ)
    if os.environ.get("LOAD_SCENARIO"):
        _schedule = Conductor(_order, ordered(_order, expected_s))
        Shape = shape_of(_schedule)
        _run: Run = _schedule
    else:
        _run = ClosedLoop(_order, os.environ)
except (InvalidRunConfig, TimelineError) as error:
    sys.exit(str(error))
_run.install(events)
globals().update(users_of(_run))
