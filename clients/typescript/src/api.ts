import type { AuthenticationHandler, Credentials } from "./authentication.js";
import type { BackoffSettings } from "./backoff.js";
import type { Clock } from "./clock.js";
import type { ExpiredError, SealpostError } from "./errors.js";
import type { KeyRotation, KeyRotationHandler, MessageHandler } from "./inbox.js";
import type { WebSocketConstructor } from "./link.js";
import type { Message } from "./message.js";
import type { IdentityStore, OutboxStore } from "./storage/types.js";
import type { WatchdogSettings } from "./watchdog.js";

export interface ConnectOptions {
    /** Lets this client register where the operator asks for a token. */
    accessToken?: string | undefined;
    /** Where the identity is kept; without it, in memory: every process is a new device. */
    identity?: IdentityStore | undefined;
    /** Where messages are kept until the relay has them; without it, in memory. */
    outbox?: OutboxStore | undefined;
    /** The WebSocket to use; without it, that of the runtime. Node 20 has none: pass the class of the `ws` package. */
    WebSocket?: WebSocketConstructor | undefined;
    /** Whose messages this device takes: `correspondents` are those that it has written to itself. */
    accept?: "anyone" | "correspondents" | undefined;
    /** How many handlers run at once, 8 by default; those of one sender never do. */
    concurrency?: number | undefined;
    backoff?: Partial<BackoffSettings> | undefined;
    watchdog?: Partial<WatchdogSettings> | undefined;
    /** For tests: where time comes from. */
    clock?: Clock | undefined;
    /** For tests: numbers from 0 up to 1. */
    random?: (() => number) | undefined;
}

export interface SendOptions {
    /** Seconds after which the message is worth nothing; 0: now or never. Without it, the relay's default. */
    ttl?: number | undefined;
    /** `Text`, `Image`, `KeyPackage` or `Other`; the relay sees it. */
    contentType?: string | undefined;
    signature?: string | undefined;
    /** More fields of the payload; any JSON. The relay sees them. */
    fields?: Record<string, unknown> | undefined;
}

/** What the application holds of a message that it sent. */
export interface SendHandle {
    readonly id: string;
    /** The relay has the message. */
    readonly accepted: Promise<void>;
    /** The recipient's connection took the message, or its handler has ended well. */
    readonly delivered: Promise<void>;
    /** The last word of the relay: `processed` by a resumable recipient, `delivered` to a plain one. */
    readonly processed: Promise<"delivered" | "processed">;
}

/** How a client is connected. */
export type State =
    | { name: "connecting" }
    | { name: "online" }
    | {
          name: "offline";
          /** Why, in words. */
          reason: string;
          /** Unix milliseconds of the next attempt; without it, none is made until `connect()` is called. */
          nextAttempt?: number;
      }
    /** Another connection took up this device. */
    | { name: "replaced" }
    | { name: "closed" };

/** The events of a client, by name. */
export interface ClientEvents {
    state: State;
    /** How many messages the relay does not have yet. */
    unsent: number;
    /** The relay knows this device now. */
    registered: { deviceId: string; resumed: boolean };
    /** The relay does not know this device any more; peers must be told the new id. */
    identityLost: { deviceId: string };
    /** A peer began an authentication that `onAuthenticate` answered, and both sides trust each other now. */
    authenticated: { from: string };
    /** An Ack of a message that another process sent. */
    receipt: { id: string; status: "queued" | "delivered" | "processed" };
    /** A message that another process sent expired. */
    expired: { id: string; error: ExpiredError };
    /** A message that another process sent was refused or given up. */
    failed: { id: string; error: SealpostError };
    /** A handler failed; it gets the same again after a while. */
    handlerError: { message: Message | KeyRotation; error: unknown };
    /** A store failed, or the relay sent what cannot be read. */
    error: unknown;
}

/** Another device. */
export interface Peer {
    readonly id: string;
    /** Verifies the peer and is verified by it. */
    authenticate(credentials: Credentials): Promise<void>;
    /** Gives the peer a new key. Resolves when the peer has taken it. */
    rotateKey(keyPackage: string, keyId?: string | number): Promise<void>;
}

/** A device at a relay. It stays connected until it is closed, and what is sent waits while it is not. */
export interface Client {
    readonly state: State;
    /** How many messages the relay does not have yet. */
    readonly unsent: number;
    /** The id of this device, once it is known. */
    readonly deviceId: string | undefined;
    /** Calls the listener at each event of this name. Returns a function that ends this. */
    on<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): () => void;
    /** Sends data to a device: a string as it is, bytes as base64. It is for the application to encrypt it before. */
    send(to: string, data: string | Uint8Array, options?: SendOptions): SendHandle;
    /** Sets who takes messages. They are confirmed when its promise resolves; until it is set they wait. */
    onMessage(handler: MessageHandler): void;
    /** Sets who takes new keys of peers, and says whether they are good. Without it, each is answered with no. */
    onKeyRotation(handler: KeyRotationHandler): void;
    /** Sets who answers when a peer wants to authenticate. Without it, no answer leaves. */
    onAuthenticate(handler: AuthenticationHandler): void;
    peer(id: string): Peer;
    /** `Offline` lets messages wait at the relay; the connection stays. */
    setStatus(status: "Online" | "Away" | "Offline"): void;
    /** Tries to connect at once, also after `close()` and where the client has given up. */
    connect(): void;
    /** Ends this device at the relay, as soon as there is a connection, and forgets its identity. */
    unregister(): Promise<void>;
    /**
     * Says goodbye. What is not sent stays in the outbox, and its handles stay open. Resolves when all of it is stored.
     */
    close(): Promise<void>;
}
