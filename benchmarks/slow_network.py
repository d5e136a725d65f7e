"""A slow network between a client and a server on this machine, which delays every answer.

`python -m benchmarks.slow_network PORT SECONDS` prints the port that leads to PORT.
"""

from __future__ import annotations

import asyncio
import sys


async def main(server_port: int, delay: float) -> None:
    """Forward bytes in both directions, with the server's delayed."""

    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", server_port)
        await asyncio.gather(passed_on(client, to_server, 0), passed_on(server, to_client, delay))

    proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(proxy.sockets[0].getsockname()[1], flush=True)
    await proxy.serve_forever()


async def passed_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
) -> None:
    """Forward what is read, in order, each piece after a delay in seconds."""
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(2**20):
            loop.call_later(delay, writer.write, data)
    except ConnectionError:
        pass
    loop.call_later(delay, writer.close)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
