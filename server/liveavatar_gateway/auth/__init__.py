"""Callers: their credentials, tenants, roles and quotas. Nothing here knows gRPC."""
