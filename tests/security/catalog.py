"""All attacks, with the bounds within which a gateway has to stay."""

from typing import Final

from security.trial import Attack

_MB: Final = 1024 * 1024

ATTACKS: Final = (
    Attack(name="frames.window_updates", in_short=True),
    Attack(name="frames.unknown_frames"),
    Attack(name="frames.empty_unknown_frames"),
    Attack(name="frames.priorities"),
    Attack(name="frames.pings", in_short=True),
    Attack(name="frames.ping_acks"),
    Attack(name="frames.settings", in_short=True),
    Attack(name="frames.resets_of_nothing"),
    Attack(name="frames.rapid_reset", leaves_to_proxy=True),
    Attack(name="frames.rapid_reset", behind_envoy=True, in_short=True, outcomes=("closed",)),
    Attack(name="frames.made_you_reset"),
    Attack(name="frames.continuations"),
    Attack(name="frames.empty_data"),
    Attack(name="frames.refused_calls"),
    Attack(name="connections.silent"),
    Attack(name="connections.idle", in_short=True),
    Attack(name="connections.dripping_hello"),
    Attack(name="connections.not_http2"),
    Attack(name="connections.unary_without_end", leaves_to_proxy=True, max_memory_bytes=400 * _MB),
    Attack(name="connections.unary_without_end", behind_envoy=True),
    Attack(name="connections.attach_without_message", leaves_to_proxy=True),
    Attack(name="connections.attach_without_message", behind_envoy=True),
    Attack(name="connections.opening_and_closing"),
    Attack(name="connections.opening_and_closing", behind_envoy=True),
    *(
        Attack(
            name=f"credentials.{name}", authenticates=True, outcomes=("CREDENTIAL_INVALID",), leaves_to_proxy=True
        )
        for name in ("wrong_keys", "forged_tokens", "unsigned_tokens")
    ),
    Attack(name="messages.many_states", in_short=True, outcomes=("MESSAGE_TOO_LARGE",)),
    Attack(name="messages.many_states_in_bounds", outcomes=("INVALID_FIELD",)),
    Attack(name="messages.many_labels", outcomes=("MESSAGE_TOO_LARGE",)),
    Attack(name="messages.undecodable", in_short=True, outcomes=("closed",)),
    Attack(name="messages.broken_frames", outcomes=("closed",)),
    Attack(name="messages.refused_lines", outcomes=("INVALID_FIELD",)),
    Attack(name="memory.large_filters"),
    Attack(name="memory.unread_answers", in_short=True, max_memory_bytes=320 * _MB),
    Attack(name="memory.unread_health"),
    Attack(name="memory.bodies_without_an_end", in_short=True, outcomes=("ended",), max_memory_bytes=400 * _MB),
    Attack(name="memory.streams_without_a_message", outcomes=("ended",)),
    *(
        Attack(name=f"metrics.{name}", at_metrics=True, in_short=name == "scrapes")
        for name in ("silent", "dripping", "unread", "scrapes")
    ),
)
