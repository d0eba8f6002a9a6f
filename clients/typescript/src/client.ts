import type { Client, ClientEvents, ConnectOptions } from "./api.js";
import { createAuthentication } from "./authentication.js";
import { createBackoff } from "./backoff.js";
import { randomUuid, toBase64 } from "./bytes.js";
import { checkDeviceId, checkFields, checkKeyId, checkStatus, checkTtl, checkUrl, checkWebSocket } from "./checks.js";
import { createTimer, systemClock } from "./clock.js";
import { createConnection } from "./connection.js";
import type { Context } from "./context.js";
import { createControl, type MakeFrame } from "./control.js";
import { createEmitter } from "./emitter.js";
import { ExpiredError, GaveUpError, storeFailed } from "./errors.js";
import type { ErrorPayload, ServerFrame, StatusPayload } from "./frames.js";
import { createHandles } from "./handles.js";
import { createInbox } from "./inbox.js";
import { createOutbox } from "./outbox.js";
import { createPacing } from "./pacing.js";
import { isPassing } from "./refusals.js";
import { createRotations } from "./rotations.js";
import { memoryStorage } from "./storage/memory.js";
import { onWake } from "./wake.js";

/** What takes the payload of each type of frame. */
type Takers = Partial<Record<ServerFrame["type"], (payload: never) => unknown>>;

/** Connects a device to the relay at `url`, a `ws://` or `wss://` address that ends in `/ws`. */
export function connect(url: string, options: ConnectOptions = {}): Client {
    checkUrl(url);
    const memory = memoryStorage();
    const { clock = systemClock, random = Math.random, concurrency = 8 } = options;
    const { identity: identityStore = memory.identity, outbox: outboxStore = memory.outbox } = options;
    const backoff = { base: 1000, max: 60_000, ...options.backoff };

    const { on, emit } = createEmitter<ClientEvents>();
    const context: Context = {
        clock,
        scale: backoff.base / 1000,
        pacing: createPacing(clock),
        self: undefined,
        emit,
        write: (frame) => {
            connection.write(frame);
        },
        pump,
    };
    const handles = createHandles(context);
    const outbox = createOutbox(context, outboxStore, handles);
    const inbox = createInbox(context, identityStore, concurrency);
    const control = createControl(context);
    const authentication = createAuthentication(context, control);
    const rotations = createRotations(control);
    const pumpTimer = createTimer(clock);
    let loading: Promise<void> | undefined;
    let status: StatusPayload["status"] = "Online";
    let stopWaking: (() => void) | undefined;

    /** Writes what may leave, and sets when to look again. */
    function pump(): void {
        if (context.self) pumpTimer.set(Math.min(control.pump(), outbox.pump()), pump);
    }

    const read = async (): Promise<void> => {
        const [identity, handled, entries] = await Promise.all([
            identityStore.load(),
            identityStore.loadHandled(),
            outboxStore.load(),
        ]);
        inbox.restore(handled);
        outbox.restore(entries);
        connection.restore(identity);
    };

    /** Reads the stores, once; again if that failed. */
    const load = (): Promise<void> =>
        (loading ??= read().catch((error: unknown) => {
            loading = undefined;
            throw error;
        }));

    const sayStatus: MakeFrame = (self) => ({ type: "Status", payload: { device_id: self, status } });

    /**
     * An Error names what it is about. One that names nothing is about a Status: nothing else that leaves gets such a
     * one.
     */
    const refused = (error: ErrorPayload): void => {
        if (error.message_id !== undefined) outbox.refused(error);
        else if (error.key_id !== undefined) rotations.refused(error);
        else if (error.recipient_id !== undefined) authentication.refused(error);
        else if (isPassing(error)) control.repeat(sayStatus, error);
    };

    const takers: Takers = {
        Receive: inbox.message,
        KeyRotationUpdate: inbox.keyRotation,
        Ack: outbox.acked,
        Error: refused,
        KeyRotationAck: rotations.acked,
        AuthRequest: authentication.request,
        AuthResponse: authentication.response,
        AuthVerify: authentication.verify,
        AuthSuccess: authentication.success,
    };

    let hasBeenOnline = false;
    const connection = createConnection(context, {
        url,
        WebSocket: checkWebSocket(options.WebSocket),
        accessToken: options.accessToken,
        accept: options.accept,
        store: identityStore,
        load,
        backoff: createBackoff(backoff, random),
        random,
        watchdog: { ping: 30_000, timeout: 10_000, ...options.watchdog },

        online({ device_id, resumed, limits }) {
            context.self = device_id;
            // A process that takes up a device does not know what the one before it has left of the allowance.
            context.pacing.configure(limits, resumed ? (hasBeenOnline ? undefined : 1) : Infinity);
            hasBeenOnline = true;
            outbox.online(limits);
            // Each connection begins Online.
            if (status !== "Online") control.add(sayStatus);
            authentication.online();
            rotations.online();
            emit("registered", { deviceId: device_id, resumed });
            pump();
        },

        async frame(frame) {
            try {
                // Types that are not known are ignored: later versions of the relay may send some.
                await takers[frame.type]?.(("payload" in frame ? frame.payload : undefined) as never);
            } catch (error) {
                emit("error", error);
            }
        },

        offline(code) {
            context.self = undefined;
            pumpTimer.clear();
            control.clear();
            outbox.offline(code);
        },
    });

    /** The relay will say no more of what this device sent. */
    const deviceIsGone = (reason: string): void => {
        handles.rejectAccepted(new GaveUpError(reason));
    };
    on("identityLost", () => {
        deviceIsGone("identity lost");
    });

    /** Ends what goes on without a connection. */
    const stop = async (reason: string): Promise<void> => {
        stopWaking?.();
        stopWaking = undefined;
        inbox.pause(true);
        authentication.close(new GaveUpError(reason));
        rotations.close(new GaveUpError(reason));
        // What was sent before the stores were read is stored after that.
        await load().catch(() => undefined);
        await outbox.stop();
    };

    const begin = (): void => {
        stopWaking ??= onWake(connection.wake);
        inbox.pause(false);
        connection.connect();
    };

    // Not at once, so that listeners which are added now miss nothing.
    queueMicrotask(() => {
        if (connection.state().name === "connecting") begin();
    });

    return {
        get state() {
            return connection.state();
        },
        get unsent() {
            return outbox.size();
        },
        get deviceId() {
            return connection.deviceId();
        },
        on,

        send(to, data, { ttl, contentType, signature, fields } = {}) {
            checkTtl(ttl);
            const id = randomUuid();
            const entry = {
                id,
                to: checkDeviceId(to),
                data: typeof data === "string" ? data : toBase64(data),
                createdAt: clock.wall(),
                ttl,
                contentType,
                signature,
                fields: fields && checkFields(fields),
            };
            const handle = handles.open(id);
            if (ttl === 0 && !context.self) handles.reject(id, new ExpiredError("there is no connection now"));
            else {
                // All wait for the same promise, so the order of the calls stays.
                load().then(
                    () => outbox.add(entry),
                    (error: unknown) => {
                        handles.reject(id, storeFailed(error));
                    },
                );
            }
            return handle;
        },

        onMessage: inbox.onMessage,
        onKeyRotation: inbox.onKeyRotation,
        onAuthenticate: authentication.handler,

        peer(device) {
            const id = checkDeviceId(device);
            return {
                id,
                authenticate: (credentials) => authentication.start(id, credentials),
                async rotateKey(keyPackage, keyId = randomUuid()) {
                    checkKeyId(keyId);
                    await rotations.start(id, keyPackage, keyId);
                },
            };
        },

        setStatus(wanted) {
            checkStatus(wanted);
            status = wanted;
            control.add(sayStatus);
        },

        connect: begin,

        async unregister() {
            await connection.unregister();
            deviceIsGone("unregistered");
            await stop("unregistered");
        },

        async close() {
            const goodbye = connection.close();
            await stop("closed");
            await goodbye;
        },
    };
}
