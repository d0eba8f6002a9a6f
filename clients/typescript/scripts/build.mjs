// Makes the bundles for browsers in dist/. The same sources give the same bytes.

import { build } from "esbuild";

/**
 * Names of fields and functions that no one outside of a bundle sees: shorter ones take their place. A name that a
 * declaration in dist/ shows to users, a frame or the runtime has must not stand here; test/bundle.test.ts looks.
 */
export const INTERNAL_NAMES = [
    "acked",
    "answered",
    "asked",
    "check",
    "checked",
    "configure",
    "confirm",
    "credentials",
    "delay",
    "done",
    "drop",
    "emit",
    "ended",
    "entry",
    "failures",
    "fault",
    "frame",
    "goodbye",
    "handler",
    "isBusy",
    "isPending",
    "jobs",
    "keyRotation",
    "make",
    "mayMiss",
    "notBefore",
    "offline",
    "opened",
    "outcome",
    "own",
    "pacing",
    "pause",
    "pump",
    "refusals",
    "refused",
    "rejectAccepted",
    "repeat",
    "restore",
    "said",
    "saving",
    "scale",
    "self",
    "signer",
    "spend",
    "start",
    "stop",
    "theirs",
    "timer",
    "underWay",
    "wake",
    "what",
    "write",
];

const bundles = { "sealpost.min.js": "src/index.ts", "indexeddb.min.js": "src/indexeddb.ts" };

for (const [name, entry] of Object.entries(bundles)) {
    await build({
        entryPoints: [entry],
        outfile: `dist/${name}`,
        bundle: true,
        minify: true,
        format: "esm",
        target: "es2022",
        mangleProps: new RegExp(`^(${INTERNAL_NAMES.join("|")})$`),
        logLevel: "warning",
    });
}
