import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { promisify } from "node:util";
import { WebSocket } from "ws";
import * as plain from "@sealpost/client";
import * as bundle from "@sealpost/client/sealpost.min.js";
import { Relay } from "./support/relay.js";

void test("No name that users, frames or stores have is shortened in the bundles", async () => {
    const script = await readFile("scripts/build.mjs", "utf8");
    const list = /INTERNAL_NAMES = \[([^\]]*)\]/.exec(script)?.[1] ?? "";
    const names = [...list.matchAll(/"(\w+)"/g)].map(([, name]) => name ?? "");
    assert.ok(names.length > 20);
    const shown = ["api", "clock", "errors", "frames", "message", "storage/types"];
    for (const file of shown) {
        const declarations = await readFile(`dist/${file}.d.ts`, "utf8");
        const found = names.filter((name) => new RegExp(`^ *(readonly )?${name}[?]?[:(<]`, "m").test(declarations));
        assert.deepEqual(found, [], `${file}.d.ts shows internal names.`);
    }
});

void test("The bundle has what the package has, and does the same", async () => {
    assert.deepEqual(Object.keys(bundle).sort(), Object.keys(plain).sort());
    const relay = await Relay.start();
    const place: Record<string, string> = {};
    const signer = {
        publicKey: "key",
        sign: (challenge: string) => challenge,
        verify: (one: string, two: string) => one === two,
    };
    const ann = bundle.connect(relay.url, { WebSocket, ...bundle.localStorageStorage("ann", place), concurrency: 2 });
    const bob = plain.connect(relay.url, { WebSocket });
    try {
        assert.deepEqual(Object.keys(ann), Object.keys(bob));
        const got: plain.Message[] = [];
        bob.onMessage((message) => got.push(message));
        bob.onKeyRotation((rotation) => rotation.package === "package");
        bob.onAuthenticate(({ publicKey }) => (publicKey === "key" ? signer : undefined));
        await Promise.all([ann, bob].map((client) => new Promise((resolve) => client.on("registered", resolve))));
        const peer = ann.peer(String(bob.deviceId));
        const sent = ann.send(peer.id, "hello", {
            ttl: 60,
            contentType: "Text",
            signature: "s",
            fields: { "x-more": 1 },
        });
        assert.equal(await sent.processed, "processed");
        assert.deepEqual(
            got.map(({ from, id, data, contentType, ttl, signature }) => ({
                from,
                id,
                data,
                contentType,
                ttl,
                signature,
            })),
            [{ from: ann.deviceId, id: sent.id, data: "hello", contentType: "Text", ttl: 60, signature: "s" }],
        );
        await peer.authenticate(signer);
        await peer.rotateKey("package");
        const error = await ann
            .send("00000000-0000-4000-8000-000000000001", "x")
            .accepted.catch((thrown: unknown) => thrown);
        assert.ok(error instanceof bundle.RefusedError);
        assert.equal(error.code, 404);
        const identity = JSON.parse(place["ann.identity."] ?? "{}") as Record<string, unknown>;
        assert.deepEqual(Object.keys(identity), ["deviceId", "resumeToken"]);
    } finally {
        await Promise.all([ann.close(), bob.close()]);
        await relay.stop();
    }
});

void test("The same sources give the same bytes", async () => {
    const read = (): Promise<Buffer[]> =>
        Promise.all(["dist/sealpost.min.js", "dist/indexeddb.min.js"].map((file) => readFile(file)));
    const before = await read();
    await promisify(execFile)(process.execPath, ["scripts/build.mjs"]);
    assert.deepEqual(await read(), before);
});
