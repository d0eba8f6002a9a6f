import { randomBytes, toBase64 } from "./bytes.js";
import { createTimer, type Timer } from "./clock.js";
import type { Context } from "./context.js";
import type { Control, MakeFrame } from "./control.js";
import { GaveUpError, RefusedError, type SealpostError } from "./errors.js";
import type {
    AuthRequestPayload,
    AuthResponsePayload,
    AuthSuccessPayload,
    AuthVerifyPayload,
    ClientFrame,
    ErrorPayload,
} from "./frames.js";
import { type Deferred, deferred } from "./promises.js";
import { isPassing } from "./refusals.js";

/** How long an exchange may take, in milliseconds. */
const PATIENCE = 60_000;

/** The application's part of an exchange. */
export interface Signer {
    /** Gives the response to a challenge of the peer. */
    sign(challenge: string): string | Promise<string>;
    /** Says whether the peer's response to a challenge of this device is good. */
    verify(challenge: string, response: string): boolean | Promise<boolean>;
}

export interface Credentials extends Signer {
    publicKey: string;
}

export interface AuthenticationRequest {
    from: string;
    publicKey: string;
}

export type AuthenticationHandler = (
    request: AuthenticationRequest,
) => Signer | undefined | Promise<Signer | undefined>;

/** One run through the four messages, begun by either side. */
interface Round {
    signer: Signer;
    /** The challenge that this side put. */
    challenge: string;
    /** The challenge that the peer put, on the side that answers. */
    theirs?: string;
    /** Whether the peer's response was good; undefined before it was checked. */
    checked?: boolean;
    /** Whether the peer says that it trusts this device. */
    trusted?: boolean;
}

/** All that is open with one peer. */
interface Exchange {
    peer: string;
    timer: Timer;
    /** What the application of this side asked for. */
    own?: { credentials: Credentials; outcome: Deferred<void> };
    /**
     * The round that this side began, and the one that it answers. Both exist where both began at once; one of them
     * goes on.
     */
    asked?: Round | undefined;
    answered?: Round;
    /**
     * What this side has said since the peer's last message. The relay drops what comes twice, so all of it may be said
     * again.
     */
    said: MakeFrame[];
    /**
     * Whether the relay may refuse a frame because of what it has seen, with 403 or 404: a repeat, or an answer where
     * both began at once.
     */
    mayMiss: boolean;
}

export interface Authentication {
    handler(handler: AuthenticationHandler): void;
    start(peer: string, credentials: Credentials): Promise<void>;
    online(): void;
    request(payload: AuthRequestPayload): Promise<void>;
    response(payload: AuthResponsePayload): Promise<void>;
    verify(payload: AuthVerifyPayload): Promise<void>;
    success(payload: AuthSuccessPayload): void;
    /** An Error that names a peer, and neither a message nor a key. */
    refused(error: ErrorPayload): void;
    /** Rejects all that are open. */
    close(error: SealpostError): void;
}

/** Mutual authentication: this module carries challenges and responses; the application signs and judges. */
export function createAuthentication({ clock, emit }: Context, control: Control): Authentication {
    const exchanges = new Map<string, Exchange>();
    /** Exchanges whose frames wait to be said again after a refusal. */
    const isPending = new Set<Exchange>();
    let onRequest: AuthenticationHandler | undefined;

    const newChallenge = (): string => toBase64(randomBytes(32));

    /** Runs a function of the application. When it fails, no answer leaves, and the exchange ends by its time. */
    const guard = async <T>(run: () => T | Promise<T>): Promise<T | undefined> => {
        try {
            return await run();
        } catch (error) {
            emit("error", error);
            return undefined;
        }
    };

    const end = ({ peer, timer, own }: Exchange, error?: SealpostError): void => {
        timer.clear();
        exchanges.delete(peer);
        if (error) own?.outcome.reject(error);
        else if (own) own.outcome.resolve();
        else emit("authenticated", { from: peer });
    };

    const begin = (peer: string): Exchange => {
        const earlier = exchanges.get(peer);
        if (earlier) end(earlier, new GaveUpError("begun anew"));
        const exchange: Exchange = { peer, timer: createTimer(clock), said: [], mayMiss: false };
        exchanges.set(peer, exchange);
        exchange.timer.set(PATIENCE, () => {
            end(exchange, new GaveUpError("the peer did not answer"));
        });
        return exchange;
    };

    const frameOf =
        (peer: string, type: "AuthRequest" | "AuthResponse" | "AuthVerify", fields: object): MakeFrame =>
        (self) =>
            ({ type, payload: { device_id: self, recipient_id: peer, ...fields } }) as ClientFrame;

    const say = (exchange: Exchange, ...frames: MakeFrame[]): void => {
        exchange.said = frames;
        frames.forEach(control.add);
    };

    const confirm =
        ({ peer }: Exchange, trusted: boolean): MakeFrame =>
        (self) => ({
            type: "AuthSuccess",
            payload: { device_id: peer, recipient_id: peer, sender_id: self, trusted },
        });

    /** Whether a round goes on: the application's functions take time, and another AuthRequest begins a new round. */
    const goesOn = (exchange: Exchange, round: Round): boolean =>
        exchanges.get(exchange.peer) === exchange && [exchange.asked, exchange.answered].includes(round);

    /** Ends the exchange when both sides have spoken. */
    const conclude = (exchange: Exchange, { checked, trusted }: Round): void => {
        if (checked === false) end(exchange, new RefusedError("the peer's response is not good"));
        else if (trusted === false) end(exchange, new RefusedError("the peer does not trust this device"));
        else if (checked && trusted) end(exchange);
    };

    return {
        handler(handler) {
            onRequest = handler;
        },

        start(peer, credentials) {
            const exchange = begin(peer);
            const outcome = deferred();
            const challenge = newChallenge();
            exchange.own = { credentials, outcome };
            exchange.asked = { signer: credentials, challenge };
            say(exchange, frameOf(peer, "AuthRequest", { public_key: credentials.publicKey, challenge }));
            return outcome.promise;
        },

        /** What was said may have been lost with the connection. */
        online() {
            isPending.clear();
            for (const exchange of exchanges.values()) {
                exchange.mayMiss = true;
                exchange.said.forEach(control.add);
            }
        },

        async request({ device_id, public_key, challenge }) {
            const peer = device_id.toLowerCase();
            const known = exchanges.get(peer);
            if (known?.answered?.theirs === challenge) {
                known.said.forEach(control.add);
                return;
            }
            // Where both began at once, what the application gave for the own request serves for the answer, too.
            const signer =
                known?.own?.credentials ?? (await guard(() => onRequest?.({ from: peer, publicKey: public_key })));
            if (!signer) return;
            const open = exchanges.get(peer);
            const exchange = open?.own ? open : begin(peer);
            // The peer began anew although this side had said all that it has to say.
            if (exchange.asked?.checked !== undefined) exchange.asked = undefined;
            const round: Round = { signer, challenge: newChallenge(), theirs: challenge };
            exchange.answered = round;
            const response = await guard(() => signer.sign(challenge));
            if (response === undefined || !goesOn(exchange, round)) return;
            exchange.mayMiss = true;
            say(exchange, frameOf(peer, "AuthResponse", { challenge_response: response, challenge: round.challenge }));
        },

        async response({ device_id, challenge_response, challenge }) {
            const exchange = exchanges.get(device_id.toLowerCase());
            const round = exchange?.asked;
            if (!exchange || !round) return;
            const good = await guard(() => round.signer.verify(round.challenge, challenge_response));
            const response = await guard(() => round.signer.sign(challenge));
            if (good === undefined || response === undefined || !goesOn(exchange, round)) return;
            round.checked = good;
            say(
                exchange,
                frameOf(exchange.peer, "AuthVerify", { challenge_response: response }),
                confirm(exchange, good),
            );
            conclude(exchange, round);
        },

        async verify({ device_id, challenge_response }) {
            const exchange = exchanges.get(device_id.toLowerCase());
            const round = exchange?.answered;
            if (!exchange || !round) return;
            // The exchange that the peer began goes on, so the one that this side began does not.
            exchange.asked = undefined;
            const good = await guard(() => round.signer.verify(round.challenge, challenge_response));
            if (good === undefined || !goesOn(exchange, round)) return;
            round.checked = good;
            say(exchange, confirm(exchange, good));
            conclude(exchange, round);
        },

        success({ sender_id, trusted }) {
            // A client that knows only the basic shapes does not say who it is: then it can only be the one peer there
            // is.
            const peer = sender_id?.toLowerCase() ?? (exchanges.size === 1 ? [...exchanges.keys()][0] : undefined);
            const exchange = exchanges.get(peer ?? "");
            // An answer to the round that this side began comes after its AuthVerify; an earlier one belongs to a round
            // before.
            const round = exchange?.asked?.checked === undefined ? exchange?.answered : exchange.asked;
            if (!exchange || !round) return;
            round.trusted = trusted;
            conclude(exchange, round);
        },

        refused(error) {
            const exchange = exchanges.get(error.recipient_id ?? "");
            if (!exchange) return;
            const { own, mayMiss } = exchange;
            if (isPassing(error)) {
                exchange.mayMiss = true;
                // The Error does not say which frame it is about. So all are said again, once for all their Errors.
                if (isPending.has(exchange)) return;
                isPending.add(exchange);
                control.repeat(() => {
                    isPending.delete(exchange);
                    exchange.said.forEach(control.add);
                    return undefined;
                }, error);
            } else if (own && !(mayMiss && [403, 404].includes(error.code))) {
                end(exchange, new RefusedError(error.message, error.code));
            }
        },

        close(error) {
            for (const exchange of exchanges.values()) end(exchange, error);
        },
    };
}
