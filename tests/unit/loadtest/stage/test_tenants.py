"""The file of two tenants is one that the gateway reads, and the keys are theirs."""

from liveavatar_gateway.auth import auth_file, keys
from stage.tenants import NOISY, QUIET, QUOTAS, tenants


def test_each_tenant_has_its_quotas_and_its_key_and_nothing_is_left_behind():
    with tenants() as files:
        found = auth_file.read(files.file).tenants
        assert list(found) == [QUIET, NOISY] == list(QUOTAS)
        for (name, tenant), file in zip(found.items(), files.key_files, strict=True):
            for quota, limit in QUOTAS[name].items():
                assert getattr(tenant.quotas, quota) == limit
            key = keys.parse(file.read_text().strip())
            assert [(entry.id, entry.digest) for entry in tenant.keys] == [(key.key_id, key.digest)]
            assert file.stat().st_mode & 0o077 == 0 or file.parent.stat().st_mode & 0o077 == 0
    assert not files.file.parent.exists()
