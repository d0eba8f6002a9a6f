import type { Backoff } from "./backoff.js";
import { createTimer } from "./clock.js";
import { GOING_AWAY, isFinal, REPLACED } from "./close_codes.js";
import type { State } from "./api.js";
import type { Context } from "./context.js";
import { GaveUpError, storeFailed } from "./errors.js";
import type { ErrorPayload, RegisterPayload, RegisterResponsePayload, ServerFrame } from "./frames.js";
import { createLink, type Link, type WebSocketConstructor } from "./link.js";
import { type Deferred, deferred } from "./promises.js";
import type { Identity, IdentityStore } from "./storage/types.js";
import { createWatchdog, type WatchdogSettings } from "./watchdog.js";

/** A connection that lasted this long shows that the relay is well: the back-off begins anew. */
const STEADY = 60_000;

/** The first wait after a restart of the relay is at least a random time up to this. */
const RESTART = 10_000;

export interface ConnectionOptions {
    url: string;
    WebSocket: WebSocketConstructor;
    accessToken: string | undefined;
    accept: RegisterPayload["accept"];
    store: IdentityStore;
    /** Reads the stores, and calls `restore`. */
    load(): Promise<void>;
    backoff: Backoff;
    random: () => number;
    watchdog: WatchdogSettings;
    /** The device is registered and its identity stored: frames may leave. */
    online(response: RegisterResponsePayload): void;
    frame(frame: ServerFrame): Promise<void>;
    /** A connection that was online ended. */
    offline(code: number): void;
}

export interface Connection {
    state(): State;
    /** Takes over the identity of an earlier process. */
    restore(stored: Identity | undefined): void;
    deviceId(): string | undefined;
    /** Tries at once, unless an attempt is under way or the connection stands. */
    connect(): void;
    /** Writes a frame if the connection is online. */
    write: Link["send"];
    /** The system woke up or the network came back: what was waited for is tried at once. */
    wake(): void;
    /** Ends the device at the relay, as soon as there is a connection, and forgets the identity. */
    unregister(): Promise<void>;
    close(): Promise<void>;
}

/** Keeps a registered connection to the relay: registers, resumes, watches, and tries again. */
export function createConnection({ clock, scale, emit }: Context, options: ConnectionOptions): Connection {
    const { store, backoff, random } = options;
    /** The next attempt while offline, the end of patience while connecting. */
    const timer = createTimer(clock);
    let state: State = { name: "connecting" };
    let link: Link | undefined;
    /** Changes with every link, so that a step that waited for a store knows whether it is still wanted. */
    let epoch = 0;
    let identity: Identity | undefined;
    /** The resume token that is known to be in the store. */
    let storedToken: string | undefined;
    /** Frames that came after the RegisterResponse, while the identity is being stored. */
    let early: ServerFrame[] | undefined;
    let onlineSince: number | undefined;
    let leaving: Deferred<void> | undefined;

    const set = (next: State): void => {
        state = next;
        emit("state", next);
    };

    /** Forgets the link, which has ended or is to end without another event. */
    const forgetLink = (code: number): void => {
        epoch++;
        timer.clear();
        watchdog.stop();
        link = early = undefined;
        if (onlineSince === undefined) return;
        if (clock.now() - onlineSince >= STEADY) backoff.reset();
        onlineSince = undefined;
        options.offline(code);
    };

    /** Ends the link, if there is one. */
    const drop = (): void => {
        link?.drop();
        forgetLink(1006);
    };

    /** Offline until the next attempt, `atLeast` milliseconds from now and the back-off more. */
    const retry = (reason: string, atLeast = 0): void => {
        drop();
        const wait = atLeast + backoff.next();
        set({ name: "offline", reason, nextAttempt: clock.wall() + wait });
        timer.set(wait, connect);
    };

    /** Offline until the application calls `connect()`. */
    const rest = (reason: string, name: "offline" | "replaced" = "offline"): void => {
        drop();
        set(name === "offline" ? { name, reason } : { name });
        leaving?.reject(new GaveUpError(reason));
    };

    const watchdog = createWatchdog(
        clock,
        options.watchdog,
        () => link?.send({ type: "Ping" }),
        () => {
            retry("the relay does not answer");
        },
    );

    /** The device is gone at the relay, as the application wanted. */
    const left = async (): Promise<void> => {
        drop();
        identity = undefined;
        await store.clear().then(leaving?.resolve, leaving?.reject);
        set({ name: "closed" });
    };

    const register = (): void => {
        const { accept, accessToken } = options;
        // A field that is undefined is absent from the text.
        link?.send({
            type: "Register",
            payload: {
                resumable: true,
                receipts: true,
                accept,
                resume_token: identity?.resumeToken,
                access_token: identity ? undefined : accessToken,
            },
        });
    };

    const registered = async (response: RegisterResponsePayload): Promise<void> => {
        const here = epoch;
        const waiting: ServerFrame[] = (early = []);
        const { device_id, resume_token } = response;
        if (storedToken !== resume_token) {
            // Also in memory: if the store fails, the next attempt resumes this device instead of leaving it behind.
            identity = { deviceId: device_id, resumeToken: resume_token };
            try {
                await store.save(identity);
                storedToken = resume_token;
            } catch (error) {
                emit("error", error);
                if (here === epoch) retry(storeFailed(error).reason);
            }
            if (here !== epoch) return;
        }
        timer.clear();
        watchdog.start();
        if (leaving) {
            link?.send({ type: "Unregister" });
            return;
        }
        onlineSince = clock.now();
        options.online(response);
        // A listener may have closed the connection.
        if (here === epoch) set({ name: "online" });
        for (const frame of waiting) if (here === epoch) void options.frame(frame);
    };

    const registerRefused = async ({ code, message, retry_after_ms }: ErrorPayload): Promise<void> => {
        if (code === 401 && identity) {
            const here = epoch;
            const { deviceId } = identity;
            identity = undefined;
            await store.clear().catch((error: unknown) => {
                emit("error", error);
            });
            emit("identityLost", { deviceId });
            if (here !== epoch) return;
            if (leaving) await left();
            else register();
        } else if (code === 429 || code >= 500) retry(message, retry_after_ms);
        // After 409 the relay closes with 4409, which says it all.
        else if (code !== 409) rest(message);
    };

    const open = (): void => {
        link = createLink(options.WebSocket, options.url, {
            opened: register,
            frame(frame) {
                watchdog.frame();
                if (frame.type === "Ping") link?.send({ type: "Pong" });
                else if (onlineSince !== undefined) void options.frame(frame);
                else if (early) early.push(frame);
                else if (frame.type === "RegisterResponse") void registered(frame.payload);
                else if (frame.type === "Error") void registerRefused(frame.payload);
            },
            ended(code, words, retryAfter = 0) {
                const reason = words || `the connection ended (${String(code)})`;
                forgetLink(code);
                if (code === 1000 && leaving) void left();
                else if (code === REPLACED) rest(reason, "replaced");
                else if (isFinal(code)) rest(reason);
                // Others were told the same time: a random part spreads them.
                else retry(reason, code === GOING_AWAY ? random() * RESTART * scale : retryAfter * (1 + random()));
            },
            fault(error) {
                emit("error", error);
            },
        });
        const { ping, timeout } = options.watchdog;
        timer.set(ping + timeout, () => {
            retry("the relay did not answer in time");
        });
    };

    const attempt = async (): Promise<void> => {
        drop();
        const here = epoch;
        set({ name: "connecting" });
        try {
            await options.load();
            if (here !== epoch) return;
            if (leaving && !identity) await left();
            else open();
        } catch (error) {
            if (here !== epoch) return;
            emit("error", error);
            rest(String(error));
        }
    };

    const connect = (): void => {
        if (!link) void attempt();
    };

    return {
        state: () => state,
        restore(stored) {
            identity = stored;
            storedToken = stored?.resumeToken;
        },
        deviceId: () => identity?.deviceId,
        connect,
        write(frame) {
            if (onlineSince !== undefined) link?.send(frame);
        },

        wake() {
            if (onlineSince !== undefined) watchdog.check();
            else if (state.name === "offline" && state.nextAttempt !== undefined) connect();
        },

        async unregister() {
            if (!leaving) {
                leaving = deferred();
                if (onlineSince === undefined) connect();
                else link?.send({ type: "Unregister" });
            }
            try {
                await leaving.promise;
            } finally {
                leaving = undefined;
            }
        },

        async close() {
            const ended = link;
            // First, so that nothing is written after the Close.
            forgetLink(1000);
            set({ name: "closed" });
            leaving?.reject(new GaveUpError("closed"));
            await ended?.goodbye(clock);
        },
    };
}
