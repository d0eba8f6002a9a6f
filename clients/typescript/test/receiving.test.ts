import assert from "node:assert/strict";
import { test } from "node:test";
import type { Message } from "../src/index.js";
import { settle } from "./support/clock.js";
import { ANN, BOB, Harness, ME, received } from "./support/harness.js";

/** A handler whose runs a test ends one by one. */
class Handler {
    readonly begun: string[] = [];
    readonly #open: { resolve: () => void; reject: (error: Error) => void }[] = [];

    readonly handle = (message: Message): Promise<void> => {
        this.begun.push(message.data);
        return new Promise((resolve, reject) => this.#open.push({ resolve, reject }));
    };

    async end(): Promise<void> {
        this.#open.shift()?.resolve();
        await settle();
    }

    async fail(): Promise<void> {
        this.#open.shift()?.reject(new Error("The handler fails."));
        await settle();
    }
}

void test("The application sees what the sender wrote", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const messages: Message[] = [];
    kit.client.onMessage((message) => messages.push(message));
    const payload = {
        ...received(ANN.toUpperCase(), "AQL/"),
        content_type: "Image",
        ttl: 60,
        signature: null,
        "x-more": 1,
    };
    await socket.says("Receive", payload);
    const [message] = messages;
    assert.ok(message);
    assert.equal(message.from, ANN);
    assert.deepEqual(message.bytes(), new Uint8Array([1, 2, 255]));
    assert.deepEqual([message.contentType, message.ttl, message.signature], ["Image", 60, undefined]);
    assert.deepEqual(message.payload, payload);
});

void test("A message is acked when its handler has ended well and its id is stored, not before", async () => {
    const kit = new Harness();
    let stored!: () => void;
    const addHandled = (): Promise<void> => new Promise((resolve) => (stored = resolve));
    const socket = await kit.online({ identity: { ...kit.storage.identity, addHandled } });
    const handler = new Handler();
    kit.client.onMessage(handler.handle);
    const payload = received(ANN, "one");
    await socket.says("Receive", payload);
    assert.deepEqual(handler.begun, ["one"]);
    await handler.end();
    assert.deepEqual(socket.frames("Ack"), []);
    stored();
    await settle();
    assert.deepEqual(socket.frames("Ack"), [{ message_id: payload["message_id"], sender_id: ANN }]);
});

void test("Messages wait, unacked, until a handler is set", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    await socket.says("Receive", received(ANN, "one"));
    assert.deepEqual(socket.frames("Ack"), []);
    const seen: string[] = [];
    kit.client.onMessage(({ data }) => seen.push(data));
    await settle();
    assert.deepEqual(seen, ["one"]);
    assert.equal(socket.frames("Ack").length, 1);
});

void test("What was handed over is acked again and not handed over again, also by a later process", async () => {
    const kit = new Harness();
    const first = await kit.online();
    const seen: string[] = [];
    kit.client.onMessage(({ data }) => seen.push(data));
    const payload = received(ANN, "one");
    await first.says("Receive", payload);
    await first.says("Receive", { ...payload, message_id: String(payload["message_id"]).toUpperCase() });
    assert.equal(first.frames("Ack").length, 2);
    await kit.start();
    kit.client.onMessage(({ data }) => seen.push(data));
    const second = await kit.register({ resumed: true });
    await second.says("Receive", payload);
    assert.equal(second.frames("Ack").length, 1);
    assert.deepEqual(seen, ["one"]);
});

void test("The same id of two senders is two messages", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const seen: string[] = [];
    kit.client.onMessage(({ data }) => seen.push(data));
    await socket.says("Receive", received(ANN, "from ann", ME));
    await socket.says("Receive", received(BOB, "from bob", ME));
    assert.deepEqual(seen, ["from ann", "from bob"]);
});

void test("What is being handled is not begun twice; its Ack leaves on the connection there is", async () => {
    const kit = new Harness();
    const first = await kit.online();
    const handler = new Handler();
    kit.client.onMessage(handler.handle);
    const payload = received(ANN, "one");
    await first.says("Receive", payload);
    const second = await kit.reconnect();
    await second.says("Receive", payload);
    assert.deepEqual(handler.begun, ["one"]);
    await handler.end();
    assert.deepEqual([first.frames("Ack").length, second.frames("Ack").length], [0, 1]);
});

void test("A handler that ends while there is no connection: the repeat is acked", async () => {
    const kit = new Harness();
    const first = await kit.online();
    const handler = new Handler();
    kit.client.onMessage(handler.handle);
    const payload = received(ANN, "one");
    await first.says("Receive", payload);
    await first.ends(1006);
    await handler.end();
    await kit.clock.advance(1000);
    const second = await kit.register({ resumed: true });
    assert.equal(second.frames("Ack").length, 0);
    await second.says("Receive", payload);
    assert.equal(second.frames("Ack").length, 1);
    assert.deepEqual(handler.begun, ["one"]);
});

void test("One chain per sender keeps the order; senders do not wait for each other", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const handler = new Handler();
    kit.client.onMessage(handler.handle);
    for (const data of ["a1", "a2"]) await socket.says("Receive", received(ANN, data));
    await socket.says("Receive", received(BOB, "b1"));
    assert.deepEqual(handler.begun, ["a1", "b1"]);
    await handler.end();
    assert.deepEqual(handler.begun, ["a1", "b1", "a2"]);
});

void test("At most `concurrency` handlers run, and every sender gets a turn", async () => {
    const kit = new Harness();
    const socket = await kit.online({ concurrency: 1 });
    const handler = new Handler();
    kit.client.onMessage(handler.handle);
    for (const data of ["a1", "a2", "a3"]) await socket.says("Receive", received(ANN, data));
    await socket.says("Receive", received(BOB, "b1"));
    for (let at = 0; at < 3; at++) await handler.end();
    assert.deepEqual(handler.begun, ["a1", "b1", "a2", "a3"]);
});

void test("A handler that fails gets the same message again after a back-off, and later ones of this sender wait", async () => {
    const kit = new Harness();
    const socket = await kit.online({ watchdog: { ping: 1e9 } });
    const handler = new Handler();
    kit.client.onMessage(handler.handle);
    await socket.says("Receive", received(ANN, "a1"));
    await socket.says("Receive", received(ANN, "a2"));
    for (const [at, wait] of [1, 2, 4, 8, 16, 32, 60, 60].entries()) {
        await handler.fail();
        assert.equal(kit.events("handlerError").length, at + 1);
        await kit.clock.advance(wait * 1000 - 1);
        assert.equal(handler.begun.length, at + 1);
        await kit.clock.advance(1);
        assert.equal(handler.begun.length, at + 2);
    }
    await socket.says("Receive", received(BOB, "b1"));
    assert.equal(handler.begun.at(-1), "b1");
    await handler.end();
    assert.equal(handler.begun.at(-1), "a2");
    assert.equal(socket.frames("Ack").length, 1);
});

void test("An id that cannot be stored: no Ack, the handler does not run again, the write is tried again", async () => {
    const kit = new Harness();
    let fails = true;
    const addHandled = async (): Promise<void> => {
        if (fails) throw new Error("disk full");
    };
    const socket = await kit.online({ identity: { ...kit.storage.identity, addHandled } });
    const seen: string[] = [];
    kit.client.onMessage(({ data }) => seen.push(data));
    await socket.says("Receive", received(ANN, "one"));
    assert.equal(kit.events("error").length, 1);
    assert.equal(socket.frames("Ack").length, 0);
    fails = false;
    await kit.clock.advance(1000);
    assert.equal(socket.frames("Ack").length, 1);
    assert.deepEqual(seen, ["one"]);
});

void test("A closed client begins nothing more, and goes on when it connects again", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const handler = new Handler();
    kit.client.onMessage(handler.handle);
    for (const data of ["a1", "a2"]) await socket.says("Receive", received(ANN, data));
    const closed = kit.client.close();
    await socket.ends(1000);
    await closed;
    await handler.end();
    assert.deepEqual(handler.begun, ["a1"]);
    kit.client.connect();
    await settle();
    assert.deepEqual(handler.begun, ["a1", "a2"]);
});

void test("A new key goes through the chain of its sender, and its answer is given again to a repeat", async () => {
    const kit = new Harness();
    const first = await kit.online();
    const order: unknown[] = [];
    kit.client.onMessage(({ data }) => order.push(data));
    kit.client.onKeyRotation(async ({ from, keyId, package: keyPackage }) => {
        order.push([from, keyId, keyPackage]);
        return keyId === 7;
    });
    const update = { sender_id: ANN, recipient_id: ME, encrypted_key_package: "k7", key_id: 7 };
    await first.says("Receive", received(ANN, "before"));
    await first.says("KeyRotationUpdate", update);
    await first.says("KeyRotationUpdate", { ...update, key_id: "7", encrypted_key_package: "k8" });
    await first.says("Receive", received(ANN, "after"));
    assert.deepEqual(order, ["before", [ANN, 7, "k7"], [ANN, "7", "k8"], "after"]);
    const answer = { sender_id: ME, recipient_id: ANN };
    assert.deepEqual(first.frames("KeyRotationAck"), [
        { ...answer, key_id: 7, success: true },
        { ...answer, key_id: "7", success: false },
    ]);
    await kit.start();
    const second = await kit.register({ resumed: true });
    await second.says("KeyRotationUpdate", update);
    assert.deepEqual(second.frames("KeyRotationAck"), [{ ...answer, key_id: 7, success: true }]);
    assert.equal(order.length, 4);
});

void test("An application that takes messages and no keys answers no", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    await socket.says("KeyRotationUpdate", { sender_id: ANN, recipient_id: ME, encrypted_key_package: "k", key_id: 1 });
    assert.equal(socket.frames("KeyRotationAck").length, 0);
    kit.client.onMessage(() => undefined);
    await settle();
    assert.equal(socket.frames("KeyRotationAck")[0]?.["success"], false);
});
