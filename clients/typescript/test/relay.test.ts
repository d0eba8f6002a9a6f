import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { WebSocket } from "ws";
import {
    type Client,
    type ClientEvents,
    connect,
    type ConnectOptions,
    type Credentials,
    memoryStorage,
} from "@sealpost/client";
import { fileStorage } from "@sealpost/client/node";
import { Relay } from "./support/relay.js";

/** The next event of this name that is as wanted. */
function next<Name extends keyof ClientEvents>(
    client: Client,
    name: Name,
    wanted: (event: ClientEvents[Name]) => boolean = () => true,
): Promise<ClientEvents[Name]> {
    return new Promise((resolve) => {
        const off = client.on(name, (event) => {
            if (!wanted(event)) return;
            off();
            resolve(event);
        });
    });
}

/** Starts clients at a relay, and ends all of them with it. */
async function withRelay(
    run: (relay: Relay, device: (options?: ConnectOptions) => Promise<Client & { deviceId: string }>) => Promise<void>,
    settings: Record<string, string> = {},
): Promise<void> {
    const relay = await Relay.start(settings);
    const clients: Client[] = [];
    try {
        await run(relay, async (options = {}) => {
            const client = connect(relay.url, { WebSocket, backoff: { base: 20, max: 200 }, ...options });
            clients.push(client);
            await next(client, "registered");
            return client as Client & { deviceId: string };
        });
    } finally {
        await Promise.all(clients.map((client) => client.close()));
        await relay.stop();
    }
}

/** Collects what a device gets. */
function collect(client: Client): { data: string[]; until(count: number): Promise<string[]> } {
    const data: string[] = [];
    let look = (): void => undefined;
    client.onMessage((message) => {
        data.push(message.data);
        look();
    });
    return {
        data,
        until: (count) =>
            new Promise((resolve) => {
                look = () => {
                    if (data.length >= count) resolve(data);
                };
                look();
            }),
    };
}

void test("Two devices: a message is accepted, delivered and processed", () =>
    withRelay(async (_relay, device) => {
        const [ann, bob] = [await device(), await device()];
        const got = collect(bob);
        const handle = ann.send(bob.deviceId, "hello", { ttl: 60 });
        await handle.accepted;
        await handle.delivered;
        assert.equal(await handle.processed, "processed");
        assert.deepEqual(got.data, ["hello"]);
    }));

void test("A device that is away finds its messages in order, as the next process with the same storage", () =>
    withRelay(async (relay, device) => {
        const ann = await device();
        const storage = fileStorage(join(relay.directory, "bob"));
        const bob = await device(storage);
        const id = bob.deviceId;
        await bob.close();
        const sent = ["1", "2", "3"].map((data) => ann.send(id, data));
        await Promise.all(sent.map((handle) => handle.accepted));
        const again = await device(fileStorage(join(relay.directory, "bob")));
        assert.equal(again.deviceId, id);
        assert.deepEqual(await collect(again).until(3), ["1", "2", "3"]);
        await Promise.all(sent.map((handle) => handle.processed));
    }));

void test("The relay is killed again and again: nothing is lost, nothing doubled, the order stays", () =>
    withRelay(async (relay, device) => {
        const [ann, bob] = [await device(), await device()];
        const got = collect(bob);
        const sent = [];
        for (let round = 0; round < 5; round++) {
            for (let at = 0; at < 10; at++) sent.push(ann.send(bob.deviceId, String(round * 10 + at)));
            await sent[round * 10 + 2]?.accepted;
            await relay.kill();
            await relay.run();
        }
        await Promise.all(sent.map((handle) => handle.processed));
        assert.deepEqual(
            got.data,
            Array.from({ length: 50 }, (_, at) => String(at)),
        );
    }));

void test("Many more messages than the allowance: the client paces itself and none is refused", () =>
    withRelay(
        async (_relay, device) => {
            const [ann, bob] = [await device(), await device()];
            const got = collect(bob);
            const sent = Array.from({ length: 60 }, (_, at) => ann.send(bob.deviceId, String(at)));
            await Promise.all(sent.map((handle) => handle.processed));
            assert.deepEqual(
                got.data,
                Array.from({ length: 60 }, (_, at) => String(at)),
            );
        },
        { SEALPOST__RATE_LIMIT__MESSAGES_PER_MINUTE: "6000", SEALPOST__RATE_LIMIT__BURST: "10" },
    ));

const respond = (challenge: string, key: string): string =>
    createHash("sha256")
        .update(challenge + key)
        .digest("base64");
const credentials = (own: string, peer: string): Credentials => ({
    publicKey: own,
    sign: (challenge) => respond(challenge, own),
    verify: (challenge, response) => response === respond(challenge, peer),
});

void test("Two devices authenticate each other, one by one and both at once, and rotate a key", () =>
    withRelay(async (_relay, device) => {
        const [ann, bob] = [await device(), await device()];
        bob.onAuthenticate(({ publicKey }) => credentials("bob", publicKey));
        bob.onKeyRotation(({ package: keyPackage }) => keyPackage === "good");
        const told = next(bob, "authenticated");
        await ann.peer(bob.deviceId).authenticate(credentials("ann", "bob"));
        assert.deepEqual(await told, { from: ann.deviceId });
        for (let round = 0; round < 5; round++) {
            await Promise.all([
                ann.peer(bob.deviceId).authenticate(credentials("ann", "bob")),
                bob.peer(ann.deviceId).authenticate(credentials("bob", "ann")),
            ]);
        }
        await assert.rejects(ann.peer(bob.deviceId).authenticate(credentials("ann", "eve")), /not good/);
        await ann.peer(bob.deviceId).rotateKey("good");
        await assert.rejects(ann.peer(bob.deviceId).rotateKey("bad", 7), /refused the key/);
    }));

void test("A second process with the same storage replaces the first", () =>
    withRelay(async (_relay, device) => {
        const storage = memoryStorage();
        const first = await device(storage);
        const replaced = next(first, "state", ({ name }) => name === "replaced");
        await device(storage);
        await replaced;
    }));

void test("A relay that has forgotten the device: the identity is lost and made anew", () =>
    withRelay(
        async (relay, device) => {
            const ann = await device();
            const before = ann.deviceId;
            const lost = next(ann, "identityLost");
            const registered = next(ann, "registered");
            await relay.kill();
            await relay.run({ SEALPOST__QUEUE__DURABLE: "false" });
            assert.deepEqual(await lost, { deviceId: before });
            assert.notEqual((await registered).deviceId, before);
        },
        { SEALPOST__QUEUE__DURABLE: "false" },
    ));

void test("unregister() ends the device: its id is unknown to others", () =>
    withRelay(async (_relay, device) => {
        const [ann, bob] = [await device(), await device()];
        const { deviceId } = bob;
        await bob.unregister();
        await assert.rejects(ann.send(deviceId, "hello").accepted, { name: "RefusedError", code: 404 });
    }));

void test("A status of Offline holds messages until it is Online again", () =>
    withRelay(async (_relay, device) => {
        const [ann, bob] = [await device(), await device()];
        const got = collect(bob);
        bob.setStatus("Offline");
        // What a device sends itself comes back after the relay has read what left before it.
        await bob.send(bob.deviceId, "to myself").accepted;
        const handle = ann.send(bob.deviceId, "hello");
        await handle.accepted;
        assert.deepEqual(got.data, []);
        bob.setStatus("Online");
        await handle.processed;
        assert.deepEqual(got.data.sort(), ["hello", "to myself"]);
    }));
