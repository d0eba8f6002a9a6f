import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { Log, readIfThere, syncDirectory, writeAtomically } from "./log.js";
import { HANDLED_LIMIT, type HandledId, type Identity, type OutboxEntry, type Storage } from "./types.js";

/**
 * Keeps everything in a directory, which belongs to one process at a time. A change is on the disk when its promise
 * resolves. Only the owner may read the files.
 */
export function fileStorage(directory: string): Storage {
    const identityPath = join(directory, "identity.json");
    const handled = new Log<HandledId>(join(directory, "handled.log"), HANDLED_LIMIT);
    const entries = new Log<OutboxEntry>(join(directory, "outbox.log"));
    return {
        identity: {
            load: async () => {
                const text = await readIfThere(identityPath);
                return text === undefined ? undefined : (JSON.parse(text) as Identity);
            },
            save: async (identity) => {
                await mkdir(directory, { recursive: true, mode: 0o700 });
                await writeAtomically(identityPath, `${JSON.stringify(identity)}\n`);
            },
            clear: async () => {
                await rm(identityPath, { force: true });
                await syncDirectory(directory);
            },
            loadHandled: () => handled.values(),
            addHandled: (added) => handled.set(`${added.sender} ${added.id}`, added),
        },
        outbox: {
            load: () => entries.values(),
            put: (entry) => entries.set(entry.id, entry),
            remove: (id) => entries.delete(id),
        },
    };
}
