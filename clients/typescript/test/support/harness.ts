import { type Client, type ClientEvents, connect, type ConnectOptions, memoryStorage } from "../../src/index.js";
import { FakeClock, settle } from "./clock.js";
import { FakeSocket } from "./socket.js";

export const ME = "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";
export const ANN = "a1b2c3d4-e5f6-4890-8234-567890abcdef";
export const BOB = "b0b00000-1234-4abc-9def-0123456789ab";
export const TOKEN = "9c0f4a6d7be2815358f0c1d2ab34e6977d1c5e80b2f94a633f7081d9ce25ba46";

export const LIMITS = {
    message_bytes: 65536,
    messages_per_minute: 60,
    burst: 60,
    control_per_minute: 600,
    queue_messages: 1000,
    queue_bytes: 16777216,
    max_ttl: 604800,
    default_ttl: 86400,
    window: 64,
};

/** A client on a fake clock, whose relay is played by the test. */
export class Harness {
    readonly clock = new FakeClock();
    readonly sockets: FakeSocket[] = [];
    readonly storage = memoryStorage();
    /** What chance gives. */
    chance = 0.5;
    client!: Client;
    readonly #events: [string, unknown][] = [];

    /** Starts a client; on the same stores, as a process that is started again. */
    async start(options: ConnectOptions = {}): Promise<this> {
        const { sockets } = this;
        this.client = connect("ws://relay.test/ws", {
            ...this.storage,
            clock: this.clock,
            random: () => this.chance,
            WebSocket: class extends FakeSocket {
                constructor(url: string) {
                    super(url);
                    sockets.push(this);
                }
            },
            ...options,
        });
        const names: (keyof ClientEvents)[] = [
            "state",
            "registered",
            "identityLost",
            "authenticated",
            "receipt",
            "expired",
            "failed",
            "handlerError",
            "error",
        ];
        for (const name of names) this.client.on(name, (event) => this.#events.push([name, event]));
        await settle();
        return this;
    }

    /** The newest connection. */
    get socket(): FakeSocket {
        const socket = this.sockets.at(-1);
        if (!socket) throw new Error("No attempt was made to connect.");
        return socket;
    }

    events<Name extends keyof ClientEvents>(name: Name): ClientEvents[Name][] {
        return this.#events.filter(([other]) => other === name).map(([, event]) => event as ClientEvents[Name]);
    }

    /** The relay takes the newest connection and registers the device. */
    async register({ resumed = false, deviceId = ME, token = TOKEN, limits = {} } = {}): Promise<FakeSocket> {
        const { socket } = this;
        await socket.accept();
        await socket.says("RegisterResponse", {
            device_id: deviceId,
            protocol: 1,
            resumable: true,
            resume_token: token,
            resumed,
            queued: 0,
            session_ttl: 604800,
            limits: { ...LIMITS, ...limits },
        });
        return socket;
    }

    /** Starts a client that is registered. */
    async online(options: ConnectOptions = {}): Promise<FakeSocket> {
        await this.start(options);
        return this.register();
    }

    /** The connection breaks, and the next one is made and registered. */
    async reconnect(): Promise<FakeSocket> {
        await this.socket.ends(1006);
        await this.clock.advance(60_000);
        return this.register({ resumed: true });
    }
}

/** Acks the message that left at this place. */
export async function ack(socket: FakeSocket, at: number, status = "queued"): Promise<void> {
    await socket.says("Ack", { message_id: socket.frames("Send")[at]?.["message_id"], status });
}

/** Refuses the message that left at this place. */
export async function refuse(socket: FakeSocket, at: number, code: number, more: object = {}): Promise<void> {
    const sent = socket.frames("Send")[at];
    await socket.says("Error", {
        message: `Refused with ${String(code)}.`,
        code,
        message_id: sent?.["message_id"],
        recipient_id: sent?.["recipient_id"],
        ...more,
    });
}

let count = 0;

/** A message of a peer. */
export function received(from: string, data: string, id?: string): Record<string, unknown> {
    count++;
    const hex = count.toString(16).padStart(12, "0");
    return {
        recipient_id: ME,
        sender_id: from,
        message_id: id ?? `00000000-0000-4000-8000-${hex}`,
        encrypted_data: data,
    };
}

/** How a promise has ended so far: its value, its error, `resolved` without a value, or `open`. */
export async function outcome(promise: Promise<unknown>): Promise<unknown> {
    let result: unknown = "open";
    promise.then(
        (value) => (result = value ?? "resolved"),
        (error: unknown) => (result = error),
    );
    await settle();
    return result;
}
