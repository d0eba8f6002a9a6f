import asyncio
from sealpost import connect


async def main() -> None:
    url = "ws://127.0.0.1:8080/ws"
    async with connect(url) as alice, connect(url) as bob:
        bob.on_message(show)
        sent = await alice.send(await bob.registered(), "seal this before you send it", ttl=300)
        print("the relay says:", await sent.processed)


async def show(message) -> None:
    print(message.sender, "says:", message.data)


asyncio.run(main())
