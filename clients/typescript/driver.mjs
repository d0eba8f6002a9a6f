// The driver of the conformance kit: commands as JSON lines on stdin, events as JSON lines on stdout.
// What it says is in ../DESIGN.md.

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { connect, ExpiredError, GaveUpError, RefusedError } from "@sealpost/client";
import { fileStorage } from "@sealpost/client/node";
import { WebSocket } from "ws";

/** @type {import("@sealpost/client").Client | undefined} */
let client;
/** How handlers end, and what lets those go on that are held. */
let mode = "ok";
let release = withResolvers();

function withResolvers() {
    let resolve;
    const promise = new Promise((yes) => (resolve = yes));
    return { promise, resolve };
}

function say(event, fields = {}) {
    process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

// The fixed test scheme: a response is the hash of the challenge and of the signer's public key.
const publicKey = (device) => `key-${device}`;
const respond = (challenge, key) => createHash("sha256").update(`${challenge}:${key}`).digest("base64");

function credentials(peer) {
    return {
        publicKey: publicKey(client.deviceId),
        sign: (challenge) => respond(challenge, publicKey(client.deviceId)),
        verify: (challenge, response) => response === respond(challenge, publicKey(peer)),
    };
}

function failure(error) {
    if (error instanceof ExpiredError) return { error: "expired", reason: error.message };
    if (error instanceof RefusedError) return { error: "refused", code: error.code, reason: error.message };
    if (error instanceof GaveUpError) return { error: "gave_up", reason: error.reason };
    return { error: "gave_up", reason: String(error) };
}

function tell(promise, ref, stage, said, fields = () => ({})) {
    promise.then(
        (value) => say(said, { ref, ...fields(value) }),
        (error) => say("failed", { ref, stage, ...failure(error) }),
    );
}

async function handle(message) {
    say("message", { from: message.from, id: message.id, data: message.data });
    if (mode === "fail_once") {
        mode = "ok";
        throw new Error("The kit wants this handler to fail once.");
    }
    if (mode === "hold") await release.promise;
    say("handled", { from: message.from, id: message.id });
}

/** The kit kills this process when it has seen the number: `unsent` counts what the store has. */
function told(outbox) {
    const stored = new Set();
    const tell = () => say("unsent", { count: stored.size });
    return {
        async load() {
            const entries = await outbox.load();
            for (const { id } of entries) stored.add(id);
            tell();
            return entries;
        },
        async put(entry) {
            await outbox.put(entry);
            stored.add(entry.id);
            tell();
        },
        async remove(id) {
            await outbox.remove(id);
            stored.delete(id);
            tell();
        },
    };
}

function start({ url, storage, access_token: accessToken, backoff, watchdog }) {
    const { identity, outbox } = fileStorage(storage);
    client = connect(url, { identity, outbox: told(outbox), WebSocket, accessToken, backoff, watchdog });
    client.on("state", ({ name, reason }) => say("state", { state: name, reason }));
    client.on("registered", ({ deviceId, resumed }) => say("registered", { device_id: deviceId, resumed }));
    client.on("identityLost", ({ deviceId }) => say("identity_lost", { device_id: deviceId }));
    client.on("handlerError", ({ message, error }) =>
        say("handler_error", { from: message.from, id: message.id, reason: String(error) }),
    );
    client.on("receipt", (receipt) => say("receipt", receipt));
    client.on("expired", ({ id, error }) => say("expired", { id, reason: error.message }));
    client.on("failed", ({ id, error }) => say("failed", { id, stage: "accepted", ...failure(error) }));
    client.on("authenticated", (event) => say("authenticated", event));
    client.on("error", (error) => console.error(error));
    client.onMessage(handle);
    client.onKeyRotation(({ from, keyId, package: keyPackage }) => {
        say("key_rotation", { from, key_id: keyId, package: keyPackage });
        return true;
    });
    client.onAuthenticate(({ from, publicKey: key }) => (key === publicKey(from) ? credentials(from) : undefined));
}

const commands = {
    connect: start,
    send({ ref, to, data, ttl }) {
        const handle = client.send(to, data, { ttl });
        tell(handle.accepted, ref, "accepted", "accepted", () => ({ id: handle.id }));
        tell(handle.delivered, ref, "delivered", "delivered");
        tell(handle.processed, ref, "processed", "processed", (status) => ({ status }));
    },
    handler({ mode: wanted }) {
        if (wanted === "hold") release = withResolvers();
        else release.resolve();
        mode = wanted === "release" ? "ok" : wanted;
    },
    authenticate({ ref, to }) {
        tell(client.peer(to).authenticate(credentials(to)), ref, "authenticate", "authenticated");
    },
    rotate_key({ ref, to, package: keyPackage, key_id: keyId }) {
        tell(client.peer(to).rotateKey(keyPackage, keyId), ref, "rotate_key", "rotated");
    },
    status({ status }) {
        client.setStatus(status);
    },
    reconnect() {
        client.connect();
    },
    async unregister() {
        await client.unregister();
    },
    async close() {
        await client.close();
    },
};

const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
    try {
        const command = JSON.parse(line);
        await commands[command.command](command);
    } catch (error) {
        console.error(`${line}: ${error.stack}`);
    }
});
// A kit that is gone needs no driver. What `send` has taken is stored before the end.
lines.on("close", async () => {
    await client?.close();
    process.exit(0);
});
