import { HANDLED_LIMIT, type HandledId, type Identity, type OutboxEntry, type Storage } from "./types.js";

/** Keeps everything until the process ends: for devices that may be somebody else the next time. */
export function memoryStorage(): Storage {
    let identity: Identity | undefined;
    const handled: HandledId[] = [];
    const entries = new Map<string, OutboxEntry>();
    return {
        identity: {
            load: async () => identity,
            async save(saved) {
                identity = saved;
            },
            async clear() {
                identity = undefined;
            },
            loadHandled: async () => handled.slice(),
            async addHandled(added) {
                if (handled.push(added) > HANDLED_LIMIT) handled.shift();
            },
        },
        outbox: {
            load: async () => [...entries.values()],
            async put(entry) {
                entries.set(entry.id, entry);
            },
            async remove(id) {
                entries.delete(id);
            },
        },
    };
}
