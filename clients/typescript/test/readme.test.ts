import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { Relay } from "./support/relay.js";

/** What the blocks that do not connect by themselves take for granted. */
const GIVEN = `
  import { connect as connectAll } from "@sealpost/client";
  const client = connectAll("URL"), bob = connectAll("URL");
  bob.onMessage(() => {});
  await Promise.all([client, bob].map((one) => new Promise((resolve) => one.on("registered", resolve))));
  const peerId = bob.deviceId;
`;

/** What a browser has. */
const BROWSER = `
  import "fake-indexeddb/auto";
  import { WebSocket } from "ws";
  globalThis.WebSocket = WebSocket;
  Object.defineProperty(globalThis, "localStorage", { value: {} });
`;

/** Every block runs to its end without an error. */
const END = `
  if (client.state.name !== "closed" && !client.deviceId) await new Promise((resolve) => client.on("registered", resolve));
  process.exit(0);
`;

void test("Each block of the README runs", async () => {
    const blocks = [...(await readFile("README.md", "utf8")).matchAll(/^```js\n(.*?)^```/gms)].map(
        ([, block]) => block ?? "",
    );
    assert.ok(blocks.length >= 10);
    const relay = await Relay.start();
    await mkdir("build", { recursive: true });
    // Inside of the package, so that its name means this package.
    const directory = await mkdtemp(join("build", "readme-"));
    try {
        await writeFile(join(directory, "browser.mjs"), BROWSER);
        for (const [at, block] of blocks.entries()) {
            const file = join(directory, `${String(at)}.mjs`);
            const connects = block.includes("connect(");
            const end =
                block.includes("client") && !block.includes("await Promise.all([ann") ? END : "process.exit(0);";
            const given = connects && !block.includes("client.connect()") ? "" : GIVEN;
            const text = `import "./browser.mjs";\n${given}${block}${end}`;
            const here = text.replaceAll("ws://127.0.0.1:8080/ws", relay.url).replaceAll("URL", relay.url);
            await writeFile(file, here.replaceAll("./device", join(relay.directory, "device")));
            await promisify(execFile)(process.execPath, [file], { timeout: 60_000 }).catch((error: unknown) => {
                assert.fail(`Block ${String(at + 1)} fails: ${String(error)}\n${block}`);
            });
        }
    } finally {
        await rm(directory, { recursive: true });
        await relay.stop();
    }
});
