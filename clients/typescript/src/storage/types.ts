/** Who a device is. Both are secrets of the device; the token like a key. */
export interface Identity {
    deviceId: string;
    resumeToken: string;
}

/** A message or a key rotation that the application has had, so that it does not get it again. */
export interface HandledId {
    sender: string;
    /** The message id, or `key:` and the key id as JSON. */
    id: string;
    /** What was answered to a key rotation. */
    answer?: boolean;
}

/** How many handled ids a client remembers. */
export const HANDLED_LIMIT = 10_000;

/** Keeps the identity and the ids that were handed over. A promise resolves when the change would survive a crash. */
export interface IdentityStore {
    load(): Promise<Identity | undefined>;
    save(identity: Identity): Promise<void>;
    /** Forgets the identity. The handled ids stay. */
    clear(): Promise<void>;
    /** The newest `HANDLED_LIMIT` handled ids, oldest first. */
    loadHandled(): Promise<HandledId[]>;
    addHandled(handled: HandledId): Promise<void>;
}

/** A message that is not acked yet. All of it is JSON. */
export interface OutboxEntry {
    id: string;
    to: string;
    data: string;
    /** The order of the `send()` calls. */
    seq: number;
    /** Unix milliseconds of the `send()` call. */
    createdAt: number;
    ttl?: number | undefined;
    contentType?: string | undefined;
    signature?: string | undefined;
    fields?: Record<string, unknown> | undefined;
    /** The device id under which it may have been written to a socket. */
    sender?: string | undefined;
}

/** Keeps the messages that are not acked yet. A promise resolves when the change would survive a crash. */
export interface OutboxStore {
    /** All entries, in any order. */
    load(): Promise<OutboxEntry[]>;
    /** Adds the entry, or takes the place of the one with its id. */
    put(entry: OutboxEntry): Promise<void>;
    remove(id: string): Promise<void>;
}

/** Both stores of one device. */
export interface Storage {
    identity: IdentityStore;
    outbox: OutboxStore;
}
