"""An aioice agent on the addresses of the loopback interface, steered by JSON lines.

    aioice-peer.py controlling|controlled
    > {"username", "password", "candidates"}     printed first: our credentials and candidates
    < {"username", "password", "candidates"}     read: those of the peer
    > {"connected": true} or {"failed": "why"}
    > {"received": "text"}                       for each datagram, which is sent back

It ends when standard input does.
"""

import asyncio
import json
import sys

import aioice.ice
from aioice import Candidate, Connection


def tell(**message):
    print(json.dumps(message), flush=True)


async def read_line():
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return json.loads(line) if line else None


async def echo(connection):
    while True:
        data = await connection.recv()
        tell(received=data.decode())
        await connection.send(data)


async def main(role):
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1", "::1"]
    connection = Connection(ice_controlling=role == "controlling")
    await connection.gather_candidates()
    tell(
        username=connection.local_username,
        password=connection.local_password,
        candidates=["candidate:" + each.to_sdp() for each in connection.local_candidates],
    )
    peer = await read_line()
    connection.remote_username = peer["username"]
    connection.remote_password = peer["password"]
    for text in peer["candidates"]:
        await connection.add_remote_candidate(Candidate.from_sdp(text[len("candidate:"):]))
    await connection.add_remote_candidate(None)
    try:
        await connection.connect()
    except ConnectionError as error:
        tell(failed=str(error))
        return
    tell(connected=True)
    echoing = asyncio.ensure_future(echo(connection))
    while await read_line() is not None:
        pass
    echoing.cancel()
    await connection.close()


asyncio.run(main(sys.argv[1]))
