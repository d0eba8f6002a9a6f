import assert from "node:assert/strict";
import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import "fake-indexeddb/auto";
import { localStorageStorage, memoryStorage, type OutboxEntry, type Storage } from "../src/index.js";
import { indexedDbStorage } from "../src/indexeddb.js";
import { fileStorage } from "../src/node.js";
import { HANDLED_LIMIT } from "../src/storage/types.js";
import { ANN, ME, TOKEN } from "./support/harness.js";

const entry = (id: string, seq: number): OutboxEntry => ({ id, seq, to: ANN, data: "x", createdAt: 1, ttl: undefined });
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

async function inDirectory(run: (directory: string) => Promise<void>): Promise<void> {
    const directory = await mkdtemp(join(tmpdir(), "sealpost-client-"));
    try {
        await run(join(directory, "device"));
    } finally {
        await rm(directory, { recursive: true });
    }
}

/** What every storage does; `again` opens it as the next process does. */
async function behaves(again: () => Storage): Promise<void> {
    const first = again();
    assert.equal(await first.identity.load(), undefined);
    assert.deepEqual(await first.identity.loadHandled(), []);
    assert.deepEqual(await first.outbox.load(), []);
    await first.identity.save({ deviceId: ME, resumeToken: TOKEN });
    await first.identity.addHandled({ sender: ANN, id: "1" });
    await first.identity.addHandled({ sender: ANN, id: "key:7", answer: false });
    for (const [at, id] of ["a", "b", "c"].entries()) await first.outbox.put(entry(id, at));
    await first.outbox.put({ ...entry("b", 1), sender: ME });
    await first.outbox.remove("a");
    await first.outbox.remove("never");

    const second = again();
    assert.deepEqual(await second.identity.load(), { deviceId: ME, resumeToken: TOKEN });
    assert.deepEqual(await second.identity.loadHandled(), [
        { sender: ANN, id: "1" },
        { sender: ANN, id: "key:7", answer: false },
    ]);
    const entries = (await second.outbox.load()).sort((one, other) => one.seq - other.seq);
    assert.deepEqual(plain(entries), plain([{ ...entry("b", 1), sender: ME }, entry("c", 2)]));
    await second.identity.clear();
    await second.identity.clear();
    await second.identity.addHandled({ sender: ANN, id: "2" });

    const third = again();
    assert.equal(await third.identity.load(), undefined);
    assert.deepEqual(
        (await third.identity.loadHandled()).map(({ id }) => id),
        ["1", "key:7", "2"],
    );
}

void test("Memory", async () => {
    const storage = memoryStorage();
    await behaves(() => storage);
});

void test("localStorage", async () => {
    const place: Record<string, string> = { unrelated: "{" };
    await behaves(() => localStorageStorage("app", place));
    assert.equal(place["unrelated"], "{");
});

void test("IndexedDB", async () => {
    await behaves(() => indexedDbStorage("device"));
});

void test("IndexedDB: a page that deletes the database is not held up, and the next use opens it anew", async () => {
    const { identity } = indexedDbStorage("deleted");
    await identity.save({ deviceId: ME, resumeToken: TOKEN });
    await new Promise((resolve, reject) => {
        const request = indexedDB.deleteDatabase("deleted");
        request.onsuccess = resolve;
        request.onblocked = reject;
    });
    assert.equal(await identity.load(), undefined);
});

void test("Files", () =>
    inDirectory(async (directory) => {
        await behaves(() => fileStorage(directory));
    }));

for (const [name, make] of [
    ["memory", () => memoryStorage()],
    ["localStorage", () => localStorageStorage("app", {})],
    ["IndexedDB", () => indexedDbStorage("many")],
] as const) {
    void test(`The oldest of more than 10,000 handled ids are forgotten: ${name}`, async () => {
        const { identity } = make();
        await identity.loadHandled();
        for (let at = 0; at < HANDLED_LIMIT + 5; at++) await identity.addHandled({ sender: ANN, id: String(at) });
        const handled = await identity.loadHandled();
        assert.equal(handled.length, HANDLED_LIMIT);
        assert.deepEqual([handled[0]?.id, handled.at(-1)?.id], ["5", String(HANDLED_LIMIT + 4)]);
    });
}

void test("Files: the oldest of more than 10,000 handled ids are forgotten, and the log does not grow for ever", () =>
    inDirectory(async (directory) => {
        const { identity } = fileStorage(directory);
        const add = (at: number): Promise<void> => identity.addHandled({ sender: ANN, id: String(at) });
        await Promise.all(Array.from({ length: HANDLED_LIMIT }, (_, at) => add(at)));
        await Promise.all(Array.from({ length: HANDLED_LIMIT + 5 }, (_, at) => add(HANDLED_LIMIT + at)));
        await Promise.all(Array.from({ length: 2000 }, (_, at) => add(2 * HANDLED_LIMIT + 5 + at)));
        const handled = await fileStorage(directory).identity.loadHandled();
        assert.equal(handled.length, HANDLED_LIMIT);
        assert.equal(handled.at(-1)?.id, String(2 * HANDLED_LIMIT + 2004));
        const lines = (await readFile(join(directory, "handled.log"), "utf8")).split("\n").length;
        assert.ok(lines < 2 * HANDLED_LIMIT + 1500, `The log has ${String(lines)} lines.`);
    }));

void test("Files: only the owner may read, and no temporary file stays", () =>
    inDirectory(async (directory) => {
        const { identity, outbox } = fileStorage(directory);
        await identity.save({ deviceId: ME, resumeToken: TOKEN });
        await identity.addHandled({ sender: ANN, id: "1" });
        await outbox.put(entry("a", 1));
        assert.deepEqual((await readdir(directory)).sort(), ["handled.log", "identity.json", "outbox.log"]);
        for (const name of await readdir(directory))
            assert.equal((await stat(join(directory, name))).mode & 0o777, 0o600);
        assert.equal((await stat(directory)).mode & 0o777, 0o700);
    }));

void test("Files: a line that a crash cut off is no entry, and what is added after it is not lost", () =>
    inDirectory(async (directory) => {
        const log = join(directory, "outbox.log");
        await fileStorage(directory).outbox.put(entry("a", 1));
        await appendFile(log, '["b",{"id":"b","se');
        const { outbox } = fileStorage(directory);
        assert.deepEqual(
            (await outbox.load()).map(({ id }) => id),
            ["a"],
        );
        await outbox.put(entry("c", 2));
        assert.deepEqual(
            (await fileStorage(directory).outbox.load()).map(({ id }) => id),
            ["a", "c"],
        );
    }));

void test("Files: a damaged line is said by file and number", () =>
    inDirectory(async (directory) => {
        await fileStorage(directory).outbox.put(entry("a", 1));
        await writeFile(join(directory, "outbox.log"), "{\n");
        await assert.rejects(fileStorage(directory).outbox.load(), /outbox\.log, line 1 is damaged/);
    }));

void test("Files: changes at the same time are all kept", () =>
    inDirectory(async (directory) => {
        const { outbox } = fileStorage(directory);
        await Promise.all(Array.from({ length: 200 }, (_, at) => outbox.put(entry(String(at), at))));
        await Promise.all(Array.from({ length: 199 }, (_, at) => outbox.remove(String(at))));
        assert.deepEqual(
            (await fileStorage(directory).outbox.load()).map(({ id }) => id),
            ["199"],
        );
    }));

void test("Files: a directory that cannot be made is an error", () =>
    inDirectory(async (directory) => {
        await writeFile(directory, "a file");
        await assert.rejects(fileStorage(directory).outbox.load());
        await assert.rejects(fileStorage(directory).identity.save({ deviceId: ME, resumeToken: TOKEN }));
    }));
