"""The stage of a measurement: processes that take part in it, each on its core, and the clocks of both."""
