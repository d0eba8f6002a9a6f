// Makes the pictures of docs/images.

import { stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { closeBrowser, openDemo, startRelay } from "./support.js";

const LARGEST = 200 * 1000;
const DESK = { viewport: { width: 1280, height: 800 } };
const PICTURES = {
  light: { ...DESK, colorScheme: "light" },
  dark: { ...DESK, colorScheme: "dark" },
  phone: { viewport: { width: 360, height: 780 }, deviceScaleFactor: 2, colorScheme: "light" },
};

const relay = await startRelay();
try {
  for (const [name, options] of Object.entries(PICTURES)) {
    const { page, alice, bob } = await openDemo({ after() {} }, relay, { reducedMotion: "reduce", ...options });
    await alice.write("Shall we meet at the lighthouse?");
    await bob.message("lighthouse").waitFor();
    await bob.write("Yes. At six, and bring the map.");
    await alice.message("the map").waitFor();
    await alice.button("New key").click();
    await alice.note("uses key-2").waitFor();
    await bob.button("Take offline").click();
    await bob.state("Offline");
    await alice.write("I have it. The tide is out until seven.");
    await alice.write("Knock twice.");
    await bob.state("2 waiting");
    await alice.status("Knock twice.", "accepted");
    await page.evaluate(() => scrollTo(0, 0));
    const path = fileURLToPath(new URL(`../../docs/images/demo-${name}.png`, import.meta.url));
    await page.screenshot({ path });
    const { size } = await stat(path);
    console.log(`${path}: ${size} bytes`);
    if (size > LARGEST) throw new Error(`${path} is larger than ${LARGEST} bytes`);
    await page.context().close();
  }
} finally {
  await closeBrowser();
  await relay.stop();
}
