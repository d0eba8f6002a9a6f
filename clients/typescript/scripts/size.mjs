// Says how large the bundles are, and fails where the one of the main entry is larger than it may be.

import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT = 8192;

for (const name of ["sealpost.min.js", "indexeddb.min.js"]) {
    const size = gzipSync(readFileSync(`dist/${name}`), { level: 9 }).length;
    console.log(`dist/${name}: ${size} bytes gzipped`);
    if (name === "sealpost.min.js" && size > LIMIT) {
        console.error(`That is more than ${LIMIT}.`);
        process.exitCode = 1;
    }
}
