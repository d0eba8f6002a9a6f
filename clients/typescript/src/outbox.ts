import { createTimer } from "./clock.js";
import { TOO_LARGE } from "./close_codes.js";
import type { Context } from "./context.js";
import { ExpiredError, GaveUpError, RefusedError, type SealpostError, storeFailed } from "./errors.js";
import type { AckPayload, ErrorPayload, Limits } from "./frames.js";
import type { Handles } from "./handles.js";
import { isPassing, toError, waitBeforeRepeat } from "./refusals.js";
import { secondsLeft, sendFrame } from "./send_frame.js";
import type { OutboxEntry, OutboxStore } from "./storage/types.js";

/** How many messages may be under way at once. */
const UNDER_WAY = 32;

interface Item {
    entry: OutboxEntry;
    /** The write to the store that has not ended. */
    saving?: Promise<void> | undefined;
    /** Whether it was written to the connection there is and not answered. */
    underWay: boolean;
    /** When a refused one may leave again. */
    notBefore: number;
    /** How often it was refused without being told how long to wait. */
    refusals: number;
}

export interface Outbox {
    size(): number;
    /** Takes over what an earlier process left in the store. */
    restore(entries: OutboxEntry[]): void;
    /** Stores a new message, then lets it leave. One with a ttl of 0 is for now only and not stored. */
    add(entry: Omit<OutboxEntry, "seq">): Promise<void>;
    /** The device is registered. */
    online(limits: Limits): void;
    /** The connection ended with this code. */
    offline(code: number): void;
    /** Writes what may leave; returns the milliseconds until more may. */
    pump(): number;
    /** An Ack of the relay, the first or a receipt. */
    acked(ack: AckPayload): void;
    /** An Error that names a message. */
    refused(error: ErrorPayload): void;
    /** Nothing more expires. Resolves when all that was written to the store has ended. */
    stop(): Promise<unknown>;
}

/** Messages that are not acked yet. They leave in the order of the `send()` calls, one at a time for each recipient. */
export function createOutbox(context: Context, store: OutboxStore, handles: Handles): Outbox {
    const { clock, pacing, scale, emit } = context;
    /** By id, in the order of the `send()` calls. Only the first one of each recipient may leave. */
    const items = new Map<string, Item>();
    const expiry = createTimer(clock);
    /** Unix milliseconds at which the next ttl has passed. */
    let nextExpiry = Infinity;
    let seq = 0;
    let underWay = 0;
    let maxBytes = Infinity;

    const insert = (entry: OutboxEntry): Item => {
        const item: Item = { entry, underWay: false, notBefore: 0, refusals: 0 };
        items.set(entry.id, item);
        emit("unsent", items.size);
        return item;
    };

    /** It is not under way any more. */
    const land = (item: Item): void => {
        if (item.underWay) underWay--;
        item.underWay = false;
    };

    const save = (item: Item, entry: OutboxEntry): Promise<void> =>
        (item.saving = store.put(entry).finally(() => (item.saving = undefined)));

    /** Takes an item out of memory and of the store. */
    const remove = async (item: Item): Promise<void> => {
        const { id, ttl } = item.entry;
        items.delete(id);
        pacing.refused.delete(item);
        land(item);
        emit("unsent", items.size);
        if (ttl === 0) return;
        try {
            // In this order, for a write that ends later would bring the entry back.
            await item.saving?.catch(() => undefined);
            await store.remove(id);
        } catch (error) {
            emit("error", error);
        }
    };

    /**
     * The application learns of it when the entry is gone from the store, so that no later process sends the message
     * after all.
     */
    const reject = async (item: Item, error: SealpostError): Promise<void> => {
        const { id } = item.entry;
        if (items.get(id) !== item) return;
        await remove(item);
        handles.reject(id, error);
        context.pump();
    };

    /** Rejects what waited for its whole ttl, and looks again when the next one will have. */
    const expire = (): void => {
        const now = clock.wall();
        nextExpiry = Infinity;
        for (const item of items.values()) {
            const { ttl, createdAt } = item.entry;
            // What is under way is the relay's to judge.
            if (!ttl || item.underWay) continue;
            const left = secondsLeft(createdAt, ttl, now);
            if (left > 0) nextExpiry = Math.min(nextExpiry, now + left * 1000);
            else void reject(item, new ExpiredError("expired in the outbox"));
        }
        expiry.set(nextExpiry - now, expire);
    };

    /** Stores under which device id the message leaves, before it leaves for the first time. */
    const mark = async (item: Item, sender: string): Promise<void> => {
        const marked = { ...item.entry, sender };
        try {
            await save(item, marked);
            item.entry = marked;
        } catch (error) {
            item.notBefore = clock.now() + waitBeforeRepeat(undefined, item.refusals++, scale);
            emit("error", error);
        }
        context.pump();
    };

    const write = (item: Item, sender: string): void => {
        const text = sendFrame(item.entry, sender, clock.wall());
        // A character has at least one byte. What is longer in bytes only is refused by the relay.
        if (text.length > maxBytes) {
            void reject(item, new RefusedError("too large", 413));
            return;
        }
        if (!pacing.refused.has(item)) pacing.spend();
        item.underWay = true;
        underWay++;
        context.write(text);
    };

    return {
        size: () => items.size,

        restore(entries) {
            for (const entry of entries.sort((a, b) => a.seq - b.seq)) {
                seq = entry.seq;
                insert(entry);
            }
            expire();
        },

        async add(fresh) {
            const entry: OutboxEntry = { ...fresh, seq: ++seq };
            const { to, ttl, createdAt } = entry;
            // What will leave at once is stored as written, which saves the second write to the store.
            if (
                underWay < UNDER_WAY &&
                pacing.delay() === 0 &&
                ![...items.values()].some((item) => item.entry.to === to)
            ) {
                entry.sender = context.self;
            }
            const item = insert(entry);
            try {
                if (ttl !== 0) await save(item, entry);
            } catch (error) {
                emit("error", error);
                await reject(item, storeFailed(error));
                return;
            }
            if (ttl && createdAt + ttl * 1000 < nextExpiry) expire();
            context.pump();
        },

        online(limits) {
            maxBytes = limits.message_bytes;
            for (const item of items.values()) {
                const { sender } = item.entry;
                // What may have been written under another id would be doubled if it were repeated.
                if (sender && sender !== context.self) void reject(item, new GaveUpError("identity lost"));
            }
        },

        offline(code) {
            let largest: Item | undefined;
            for (const item of items.values()) {
                const { ttl, data } = item.entry;
                if (item.underWay && data.length > (largest?.entry.data.length ?? -1)) largest = item;
                land(item);
                if (ttl === 0) void reject(item, new GaveUpError("the connection ended"));
            }
            if (largest && code === TOO_LARGE) void reject(largest, new RefusedError("too large", 413));
            expire();
        },

        pump() {
            let wait = Infinity;
            const seen = new Set<string>();
            for (const item of items.values()) {
                const { to, ttl, sender } = item.entry;
                if (!context.self || underWay >= UNDER_WAY) break;
                if (seen.has(to)) continue;
                seen.add(to);
                if (item.underWay || item.saving) continue;
                const delay = Math.max(item.notBefore - clock.now(), pacing.refused.has(item) ? 0 : pacing.delay());
                if (delay > 0) wait = Math.min(wait, delay);
                else if (ttl !== 0 && sender !== context.self) void mark(item, context.self);
                else write(item, context.self);
            }
            return wait;
        },

        // Ids of this client's messages come back in the small letters in which they left.
        acked({ message_id: id, status }) {
            const item = items.get(id);
            if (item) void remove(item);
            handles.acked(id, status);
            context.pump();
        },

        refused(error) {
            const { code, retry_after_ms: told, message_id: id = "" } = error;
            const item = items.get(id);
            if (item && isPassing(error)) {
                land(item);
                item.notBefore = clock.now() + waitBeforeRepeat(told, item.refusals, scale);
                if (told === undefined) item.refusals++;
                if (code === 429) pacing.refused.add(item);
                else pacing.refused.delete(item);
                expire();
            } else if (item) void reject(item, toError(error));
            // Of a message that is not in the outbox only its end is news.
            else if (code === 410) handles.reject(id, toError(error));
            context.pump();
        },

        stop() {
            expiry.clear();
            return Promise.allSettled([...items.values()].flatMap(({ saving }) => saving ?? []));
        },
    };
}
