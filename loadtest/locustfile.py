"""What `locust -f loadtest/locustfile.py` runs: one scenario, as `LOAD_*` says. See docs/load-testing.md."""

import os
import sys
from pathlib import Path

if os.environ.get("LOCUST_SKIP_MONKEY_PATCH") != "1":
    sys.exit(
        "LOCUST_SKIP_MONKEY_PATCH=1 is needed: streams run on a native event loop, which gevent hangs. "
        "`python -m load run` sets it; so must whoever starts locust by hand"
    )
# Before gRPC is imported: its newer client costs about a tenth more CPU per message.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
sys.path[:0] = [str(Path(__file__).resolve().parent)]

import gevent.monkey  # noqa: E402
from locust import events  # noqa: E402

from load.behaviours import expected_s  # noqa: E402
from load.conductor import Conductor  # noqa: E402
from load.order import InvalidOrder, Order  # noqa: E402
from load.scenarios import ordered  # noqa: E402
from load.shapes import shape_of  # noqa: E402
from load.timeline import TimelineError  # noqa: E402
from load.users import users_of  # noqa: E402

# Only these two: Locust waits for its workers with `time.sleep` and `os.waitpid`. With the first unpatched they
# could not register meanwhile, with the second it would wait for processes that gevent has seen off already.
gevent.monkey.patch_time()
gevent.monkey.patch_os()

try:
    _order = Order.from_environment(os.environ)
    _conductor = Conductor(_order, ordered(_order, expected_s))
except (InvalidOrder, TimelineError) as error:
    sys.exit(str(error))
_conductor.install(events)
Shape = shape_of(_conductor)
globals().update(users_of(_conductor, _conductor.scenario))
