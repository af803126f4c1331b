"""Says what it is told to a WebSocket with the client of python3-websockets, and prints the echo."""

import asyncio
import ssl
import sys

import websockets


async def main(url, count):
    context = None
    if url.startswith('wss:'):
        context = ssl.create_default_context()
        # The certificate is judged by its key, which the caller has done.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    async with websockets.connect(url, ssl=context) as socket:
        said = bytes(i & 0xFF for i in range(count))
        # Fragments (RFC 6455 §5.4), then a ping between, then one message.
        await socket.send([said[:10], said[10:1000]])
        await (await socket.ping())
        await socket.send(said[1000:])
        heard = b''
        while len(heard) < count:
            heard += await socket.recv()
        print('same' if heard == said else 'different')


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
