"""The handler of the application: failing, and taking long."""

from __future__ import annotations

from ..link import Cut
from ..scenario import scenario
from ..world import World


@scenario(
    "handler-fails",
    "a message whose handler failed is handed over again, before later ones of its sender; others do not wait",
)
async def handler_fails(world: World) -> None:
    alice, bob = await world.pair()
    carol = await world.device("carol")
    bob.command("handler", mode="fail_once")
    refs = [alice.send(bob) for _ in range(5)]
    carol.send(bob)
    await world.settled()
    errors = sum(event.kind == "handler_error" for event in bob.events)
    tries = sum(1 for data in bob.handed_over for ref in refs if data.startswith(f"{ref:06}:"))
    world.expect(errors == 1, f"one handler_error, not {errors}")
    world.expect(tries in (5, 6), "one message is handed over once more")


@scenario("handler-holds", "a handler that takes long: not acked, not begun again after a reconnect, other senders go on")
async def handler_holds(world: World) -> None:
    alice, bob = await world.pair()
    bob.command("handler", mode="hold")
    before = len(bob.handed_over)
    held = alice.send(bob)
    alice.send(bob)
    await world.handed_over(bob, before + 1)
    await world.told(alice, held, "accepted", "ok")
    resumed = bob.resumptions
    bob.proxy.cut(Cut.RESET)
    await world.bell.until(lambda: bob.resumptions > resumed and bob.state == "online", "bob comes back")
    # The relay hands the message over again on the new connection; bob still has it in its handler.
    await world.told(bob, bob.send(alice), "processed", "ok")
    world.expect(len(bob.handed_over) == before + 1, "the handler is not begun again, and the next one waits")
    world.expect(alice.outcome(held, "processed") is None, "what is not handled is not processed")
    bob.command("handler", mode="release")
    await world.settled()
    await world.fenced()


@scenario("one-handler-per-sender", "handlers of several senders run at the same time, one for each sender")
async def one_handler_per_sender(world: World) -> None:
    await world.relay.start()
    bob = await world.device("bob")
    bob.command("handler", mode="hold")
    senders = [await world.device(f"sender{number}") for number in range(3)]
    for _ in range(40):
        for sender in senders:
            sender.send(bob)
    await world.handed_over(bob, len(senders))
    await world.bell.never(lambda: len(bob.handed_over) > len(senders), "a second handler of one sender begins", 0.5)
    bob.command("handler", mode="release")
    await world.settled()
    await world.fenced()
