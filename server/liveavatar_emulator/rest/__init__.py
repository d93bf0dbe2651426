"""The /v1 endpoints: what they take, whom they let in, how they word their answers.

Source: LiveAvatar API reference, REST endpoints. Schema errors are the framework's own 422, as on the real
service.
"""
