"""Mutual authentication, on both sides."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from sealpost import Answer, AuthenticationRequest, Client, GaveUp, Refused
from sealpost.events import Authenticated
from tests.support.fake_relay import ALICE, BOB, FakeRelay, FakeSocket, answer_register
from tests.support.virtual_time import now


def sign(challenge: str) -> str:
    return f"alice:{challenge}"


async def verify(challenge: str, response: str) -> bool:
    return response == f"bob:{challenge}"


def authenticate(client: Client) -> asyncio.Future[None]:
    return asyncio.ensure_future(client.peer(BOB).authenticate(public_key="key", sign=sign, verify=verify))


def answering(client: Client) -> list[Authenticated]:
    """Let the client answer requests, and collect whom it trusts."""

    @client.on_authenticate
    async def answer(request: AuthenticationRequest) -> Answer | None:
        return Answer(sign, verify) if request.public_key == "bobs-key" else None

    trusted: list[Authenticated] = []
    client.on("authenticated", trusted.append)
    return trusted


def request(socket: FakeSocket, public_key: str = "bobs-key", challenge: str = "c1") -> None:
    socket.say("AuthRequest", device_id=BOB, recipient_id=ALICE, public_key=public_key, challenge=challenge)


def respond(socket: FakeSocket, begun: dict[str, Any], response: str | None = None) -> None:
    response = response or f"bob:{begun['challenge']}"
    socket.say("AuthResponse", device_id=BOB, recipient_id=ALICE, challenge_response=response, challenge="c2")


def succeed(socket: FakeSocket, trusted: bool = True, **sender: str) -> None:
    socket.say("AuthSuccess", device_id=ALICE, recipient_id=ALICE, trusted=trusted, **sender)


def refuse(socket: FakeSocket, code: int, **more: Any) -> None:
    socket.say("Error", code=code, message=f"refused with {code}", recipient_id=BOB, **more)


async def test_the_side_that_begins(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    authenticating = authenticate(client)
    begun = await socket.next("AuthRequest")
    assert {**begun, "challenge": ""} == {
        "device_id": ALICE,
        "recipient_id": BOB,
        "public_key": "key",
        "challenge": "",
    }
    assert len(base64.b64decode(begun["challenge"])) == 32
    respond(socket, begun)
    assert await socket.next("AuthVerify") == {
        "device_id": ALICE,
        "recipient_id": BOB,
        "challenge_response": "alice:c2",
    }
    assert await socket.next("AuthSuccess") == {
        "device_id": BOB,
        "recipient_id": BOB,
        "sender_id": ALICE,
        "trusted": True,
    }
    assert not authenticating.done()
    succeed(socket, sender_id=BOB)
    await authenticating


async def test_the_side_that_answers(relay: FakeRelay, client: Client) -> None:
    trusted = answering(client)
    socket = await relay.registered()
    request(socket)
    answer = await socket.next("AuthResponse")
    assert (answer["device_id"], answer["recipient_id"], answer["challenge_response"]) == (ALICE, BOB, "alice:c1")
    socket.say("AuthVerify", device_id=BOB, challenge_response=f"bob:{answer['challenge']}")
    succeed(socket, sender_id=BOB)
    success = await socket.next("AuthSuccess")
    assert success == {"device_id": BOB, "recipient_id": BOB, "sender_id": ALICE, "trusted": True}
    await asyncio.sleep(0.1)
    assert trusted == [Authenticated(BOB)]


async def test_a_success_without_sender_is_of_the_open_exchange(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    authenticating = authenticate(client)
    respond(socket, await socket.next("AuthRequest"))
    succeed(socket)
    await authenticating


async def test_a_wrong_response_is_not_trusted(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    authenticating = authenticate(client)
    respond(socket, await socket.next("AuthRequest"), "forged")
    with pytest.raises(Refused) as refused:
        await authenticating
    assert refused.value.code is None
    await socket.silence()


async def test_the_answering_side_says_that_it_does_not_trust(relay: FakeRelay, client: Client) -> None:
    trusted = answering(client)
    socket = await relay.registered()
    request(socket)
    await socket.next("AuthResponse")
    socket.say("AuthVerify", device_id=BOB, challenge_response="forged")
    succeed(socket, sender_id=BOB)
    assert (await socket.next("AuthSuccess"))["trusted"] is False
    await asyncio.sleep(0.1)
    assert trusted == []


async def test_the_other_side_does_not_trust(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    authenticating = authenticate(client)
    respond(socket, await socket.next("AuthRequest"))
    succeed(socket, trusted=False, sender_id=BOB)
    with pytest.raises(Refused, match="does not trust"):
        await authenticating


async def test_a_success_before_the_own_check_is_not_enough(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    authenticating = authenticate(client)
    await socket.next("AuthRequest")
    succeed(socket, sender_id=BOB)
    await asyncio.sleep(1)
    assert not authenticating.done()


async def test_after_a_minute_the_client_gives_up(relay: FakeRelay, client: Client) -> None:
    await relay.registered()
    await client.registered()
    start = now()
    with pytest.raises(GaveUp, match="60 s"):
        await authenticate(client)
    assert now() - start == pytest.approx(60)


@pytest.mark.parametrize("code", [404, 403, 410])
async def test_the_relay_refuses(relay: FakeRelay, client: Client, code: int) -> None:
    socket = await relay.registered()
    authenticating = authenticate(client)
    await socket.next("AuthRequest")
    refuse(socket, code)
    with pytest.raises(Refused) as refused:
        await authenticating
    assert refused.value.code == code


async def test_what_is_refused_for_now_leaves_again(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    authenticating = authenticate(client)
    begun = await socket.next("AuthRequest")
    refuse(socket, 429, retry_after_ms=1000)
    assert await socket.next("AuthRequest") == begun
    respond(socket, begun)
    verify_frame = await socket.next("AuthVerify")
    success = await socket.next("AuthSuccess")
    # The first is refused for its rate, and the second because the first did not pass.
    refuse(socket, 429, retry_after_ms=1000)
    refuse(socket, 403)
    assert await socket.next("AuthVerify") == verify_frame
    succeed(socket, sender_id=BOB)
    await authenticating
    assert success["trusted"] is True


async def test_both_begin_and_the_own_exchange_goes_on(relay: FakeRelay, client: Client) -> None:
    trusted = answering(client)
    socket = await relay.registered()
    authenticating = authenticate(client)
    begun = await socket.next("AuthRequest")
    request(socket)
    await socket.next("AuthResponse")
    respond(socket, begun)
    await socket.next("AuthVerify")
    await socket.next("AuthSuccess")
    refuse(socket, 404)  # This is about the own AuthResponse.
    succeed(socket, sender_id=BOB)
    await authenticating
    assert trusted == []


@pytest.mark.parametrize("with_handler", [True, False])
async def test_both_begin_and_the_other_exchange_goes_on(relay: FakeRelay, client: Client, with_handler: bool) -> None:
    trusted = answering(client) if with_handler else []
    socket = await relay.registered()
    authenticating = authenticate(client)
    await socket.next("AuthRequest")
    request(socket)
    answer = await socket.next("AuthResponse")
    socket.say("AuthVerify", device_id=BOB, challenge_response=f"bob:{answer['challenge']}")
    succeed(socket, sender_id=BOB)
    await socket.next("AuthSuccess")
    await authenticating
    assert trusted == [Authenticated(BOB)] * with_handler


async def test_a_stranger_may_be_left_unanswered(relay: FakeRelay, client: Client) -> None:
    answering(client)
    socket = await relay.registered()
    request(socket, public_key="unknown")
    await socket.silence()


async def test_without_a_handler_nothing_is_answered(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    request(socket)
    await socket.silence()


async def test_a_newer_authentication_takes_the_place_of_an_older(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    first, second = authenticate(client), authenticate(client)
    with pytest.raises(GaveUp, match="another authentication"):
        await first
    respond(socket, await socket.next("AuthRequest"))
    succeed(socket, sender_id=BOB)
    await second


async def test_a_function_that_raises_ends_the_exchange(relay: FakeRelay, client: Client) -> None:
    errors: list[Any] = []
    client.on("handler_error", errors.append)

    def broken(_: str) -> str:
        raise RuntimeError("no key")

    socket = await relay.registered()
    authenticating = asyncio.ensure_future(client.peer(BOB).authenticate(public_key="key", sign=broken, verify=verify))
    respond(socket, await socket.next("AuthRequest"))
    with pytest.raises(GaveUp, match="no key"):
        await authenticating
    assert len(errors) == 1


async def test_a_lost_identity_ends_exchanges(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    authenticating = authenticate(client)
    await socket.next("AuthRequest")
    socket.end()
    socket = await relay.connection()
    await socket.next("Register")
    socket.say("Error", code=401, message="Resume token refused: register afresh.")
    with pytest.raises(GaveUp, match="identity lost"):
        await authenticating
    await socket.next("Register")
    answer_register(socket, token="another")


async def test_an_exchange_outlives_its_connection(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    authenticating = authenticate(client)
    begun = await socket.next("AuthRequest")
    socket.end()
    socket = await relay.registered(resumed=True)
    respond(socket, begun)
    await socket.next("AuthVerify")
    succeed(socket, sender_id=BOB)
    await authenticating
