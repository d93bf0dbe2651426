"""The service's REST API under /v1.

Source: LiveAvatar API reference, REST endpoints. Schema errors are the framework's own 422, as on the real
service.
"""
