import { HANDLED_LIMIT, type HandledId, type Identity, type OutboxEntry, type Storage } from "./types.js";

type Kind = "identity" | "handled" | "outbox";

/** Keeps everything in an IndexedDB database of this name: for browsers and many messages. */
export function indexedDbStorage(name: string): Storage {
    let opened: Promise<IDBDatabase> | undefined;
    const database = (): Promise<IDBDatabase> =>
        (opened ??= open(name, () => (opened = undefined)).catch((error: unknown) => {
            opened = undefined;
            throw error;
        }));

    /** Runs a step in a transaction of its own; resolves with its result when the transaction is on the disk. */
    const run = async <T>(
        kind: Kind,
        mode: IDBTransactionMode,
        step: (store: IDBObjectStore) => IDBRequest<T>,
    ): Promise<T> => {
        const transaction = (await database()).transaction(kind, mode, { durability: "strict" });
        const request = step(transaction.objectStore(kind));
        return new Promise((resolve, reject) => {
            transaction.oncomplete = () => {
                resolve(request.result);
            };
            transaction.onabort = () => {
                reject(transaction.error ?? new Error("The transaction was aborted."));
            };
        });
    };

    return {
        identity: {
            load: () => run("identity", "readonly", (store) => store.get("") as IDBRequest<Identity | undefined>),
            save: async (identity) => {
                await run("identity", "readwrite", (store) => store.put(identity, ""));
            },
            clear: () => run("identity", "readwrite", (store) => store.delete("")),
            loadHandled: () => run("handled", "readonly", (store) => store.getAll() as IDBRequest<HandledId[]>),
            addHandled: async (added) => {
                await run("handled", "readwrite", (store) => {
                    const request = store.add(added) as IDBRequest<number>;
                    request.onsuccess = () => {
                        store.delete(IDBKeyRange.upperBound(request.result - HANDLED_LIMIT));
                    };
                    return request;
                });
            },
        },
        outbox: {
            load: () => run("outbox", "readonly", (store) => store.getAll() as IDBRequest<OutboxEntry[]>),
            put: async (entry) => {
                await run("outbox", "readwrite", (store) => store.put(entry));
            },
            remove: (id) => run("outbox", "readwrite", (store) => store.delete(id)),
        },
    };
}

function open(name: string, closed: () => void): Promise<IDBDatabase> {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
        request.result.createObjectStore("identity");
        request.result.createObjectStore("handled", { autoIncrement: true });
        request.result.createObjectStore("outbox", { keyPath: "id" });
    };
    return new Promise((resolve, reject) => {
        request.onsuccess = () => {
            const database = request.result;
            // Another page may want to delete the database or change its form.
            database.onversionchange = () => {
                database.close();
                closed();
            };
            database.onclose = closed;
            resolve(database);
        };
        request.onerror = () => {
            reject(request.error ?? new Error("The database cannot be opened."));
        };
        request.onblocked = () => {
            reject(new Error("Another page keeps the database open."));
        };
    });
}
