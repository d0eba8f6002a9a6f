// A relay and a browser for the tests. Nothing sleeps: a test waits for what the page shows, with Playwright's deadline.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const PATIENCE = 60_000;

/** Starts the relay in a directory of its own. `settings`: `{ SERVER__DEMO: "true" }`. */
export async function startRelay({ settings = {}, listen = "127.0.0.1:0" } = {}) {
  const binary = process.env.SEALPOST_BIN;
  assert(binary, "SEALPOST_BIN names the relay");
  const directory = await mkdtemp(path.join(tmpdir(), "sealpost-demo-"));
  const environment = Object.fromEntries(Object.entries(settings).map(([key, value]) => [`SEALPOST__${key}`, value]));
  const relay = spawn(path.resolve(binary), ["--listen", listen, "--admin-listen", "127.0.0.1:0"], {
    cwd: directory,
    env: { ...environment, SEALPOST__SWEEPER__INTERVAL: "100ms" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const kill = () => relay.kill("SIGKILL");
  process.once("exit", kill);
  const log = [];
  const lines = createInterface({ input: relay.stderr });
  const told = { address: undefined, page: undefined };
  await new Promise((resolve, reject) => {
    relay.once("exit", (code) => reject(new Error(`the relay ended with ${code}:\n${log.join("\n")}`)));
    lines.on("line", (line) => {
      log.push(line);
      told.address ??= / is listening on (\S+)$/.exec(line)?.[1];
      told.page ??= / a page to try it: (\S+)$/.exec(line)?.[1];
      if (line.includes(" health: ")) resolve();
    });
  });
  return {
    ...told,
    async stop() {
      if (relay.exitCode === null) {
        relay.kill("SIGTERM");
        await once(relay, "exit");
      }
      process.off("exit", kill);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

let browser;
/** The browser of this process. */
async function openBrowser() {
  browser ??= await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  return browser;
}

export const closeBrowser = () => browser?.close();

/**
 * Opens a page in a profile of its own. Whatever the browser complains of (errors in the console, violations of the policy,
 * failed requests) fails the test at its end; all frames of all WebSockets are kept.
 */
export async function openPage(test, url, { script, ...options } = {}) {
  const context = await (await openBrowser()).newContext({ viewport: { width: 1280, height: 800 }, ...options });
  context.setDefaultTimeout(PATIENCE);
  if (script) await context.addInitScript(script);
  const page = await context.newPage();
  const complaints = [];
  const frames = [];
  const sockets = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`error: ${error.stack}`));
  page.on("requestfailed", (request) => complaints.push(`failed: ${request.url()}`));
  page.on("response", (response) => {
    if (response.status() >= 400) complaints.push(`${response.status()}: ${response.url()}`);
  });
  page.on("websocket", (socket) => {
    sockets.push(socket);
    socket.on("framesent", ({ payload }) => frames.push(payload));
    socket.on("framereceived", ({ payload }) => frames.push(payload));
  });
  test.after(async () => {
    await context.close();
    assert.deepEqual(complaints, []);
  });
  await page.goto(url);
  return { page, context, frames, sockets, complaints };
}

/** The pane of a device, by what a person sees in it. */
export function device(page, name) {
  const pane = page.getByRole("region", { name, exact: true });
  return {
    pane,
    text: pane.getByRole("textbox"),
    button: (label) => pane.getByRole("button", { name: `${label}, ${name}` }),
    message: (text) => pane.getByRole("listitem").filter({ hasText: text }),
    note: (text) => pane.getByRole("listitem").filter({ hasText: text }),
    async write(text) {
      await this.text.fill(text);
      await this.text.press("Enter");
    },
    /** Waits until the message has this status. */
    status: (text, status) => pane.getByRole("listitem").filter({ hasText: text }).filter({ hasText: status }).waitFor(),
    state: (text) => pane.getByRole("status").filter({ hasText: text }).waitFor(),
    id: async () => /Online as (\w+)/.exec(await pane.innerText())[1],
    number: async () => /(\d{5} ){5}\d{5}/.exec(await pane.innerText())?.[0],
    texts: () => pane.locator(".message p").allInnerTexts(),
    verified: () => pane.getByText("is verified.").waitFor(),
  };
}

/** The demo, open, with both devices verified. */
export async function openDemo(test, relay, options) {
  const opened = await openPage(test, relay.page, options);
  const [alice, bob] = ["Alice", "Bob"].map((name) => device(opened.page, name));
  await Promise.all([alice.verified(), bob.verified()]);
  return { ...opened, alice, bob };
}
