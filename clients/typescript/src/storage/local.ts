import { HANDLED_LIMIT, type HandledId, type Identity, type OutboxEntry, type Storage } from "./types.js";

/**
 * Keeps everything in `localStorage`, under keys that begin with the prefix. It is small, 5 MB in most browsers: for
 * few and short messages. `storage` may be another object that keeps strings under names.
 */
export function localStorageStorage(
    prefix: string,
    storage = (globalThis as unknown as { localStorage: Record<string, string> }).localStorage,
): Storage {
    const keyOf = (kind: string, name: string | number): string => `${prefix}.${kind}.${String(name)}`;
    const read = <T>(kind: string): T[] =>
        Object.entries(storage).flatMap(([key, text]) =>
            key.startsWith(keyOf(kind, "")) ? [JSON.parse(text) as T] : [],
        );
    // Functions are async so that whatever the browser throws, such as that the storage is full, is a rejection.
    const write = async (kind: string, name: string | number, value: unknown): Promise<void> => {
        storage[keyOf(kind, name)] = JSON.stringify(value);
    };
    const remove = async (kind: string, name: string): Promise<void> => {
        Reflect.deleteProperty(storage, keyOf(kind, name));
    };
    // The handled ids stand in a ring of places: the newest takes the place of the oldest.
    let next = 0;
    return {
        identity: {
            load: async () => read<Identity>("identity")[0],
            save: (identity) => write("identity", "", identity),
            clear: () => remove("identity", ""),
            async loadHandled() {
                const handled = read<[number, HandledId]>("handled").sort(([a], [b]) => a - b);
                next = (handled.at(-1)?.[0] ?? 0) + 1;
                return handled.map(([, one]) => one);
            },
            addHandled: (added) => write("handled", next % HANDLED_LIMIT, [next++, added]),
        },
        outbox: {
            load: async () => read<OutboxEntry>("outbox"),
            put: (entry) => write("outbox", entry.id, entry),
            remove: (id) => remove("outbox", id),
        },
    };
}
