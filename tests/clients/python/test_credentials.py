"""Call credentials are sent with every call, and only over TLS."""

import grpc
from clients.python.scripted import AttachPeer, AudioPeer, scripted

from liveavatar.gateway import AsyncClient
from liveavatar.gateway.v1 import session_service_pb2 as pb


async def test_a_token_goes_with_every_call(identity):
    """Unary calls and both streams."""
    tokens = []

    def note(context) -> None:
        tokens.append(dict(context.invocation_metadata())["authorization"])

    async def attach(peer: AttachPeer) -> None:
        note(peer.context)
        await peer.opened()
        await peer.until_end()

    async def speak(peer: AudioPeer) -> None:
        note(peer.context)
        await peer.ready()
        await peer.speak_all()

    async def info(request, context):
        note(context)
        return pb.GetServerInfoResponse()

    server = grpc.ssl_server_credentials([(identity.key, identity.certificate)])
    async with scripted([attach], [speak], credentials=server) as gateway:
        gateway.unary["GetServerInfo"] = info
        async with AsyncClient(
            gateway.address,
            credentials=grpc.ssl_channel_credentials(identity.certificate),
            call_credentials=grpc.access_token_call_credentials("s3cret"),
        ) as client:
            await client.server_info()
            async with client.open_session("avatar") as session:
                await session.say(bytes(960))
            assert "s3cret" not in repr(client)
    assert tokens == ["Bearer s3cret"] * 3
