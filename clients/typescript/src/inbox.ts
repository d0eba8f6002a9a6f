import { createTimer } from "./clock.js";
import type { Context } from "./context.js";
import type { ClientFrame, KeyId, KeyRotationUpdatePayload, MessagePayload } from "./frames.js";
import { createMessage, type Message } from "./message.js";
import { HANDLED_LIMIT, type HandledId, type IdentityStore } from "./storage/types.js";
import { trim } from "./trim.js";

/** The first wait and the longest after a handler failed, in milliseconds. */
const RETRY = 1000;
const RETRY_MAX = 60_000;

/** New key material of a peer. */
export interface KeyRotation {
    from: string;
    keyId: KeyId;
    package: string;
}

export type MessageHandler = (message: Message) => unknown;
export type KeyRotationHandler = (rotation: KeyRotation) => boolean | Promise<boolean>;

/** Something to hand over once. */
interface Job {
    sender: string;
    id: string;
    what: Message | KeyRotation;
    confirm(answer: boolean | undefined): ClientFrame;
    /** What is to be stored, once the handler has ended well. */
    done?: HandledId;
}

interface Chain {
    jobs: Job[];
    failures: number;
    /** Whether a job runs or waits after a failure. */
    isBusy: boolean;
}

export interface Inbox {
    /** Takes over what an earlier process has handed over. */
    restore(handled: HandledId[]): void;
    onMessage(handler: MessageHandler): void;
    onKeyRotation(handler: KeyRotationHandler): void;
    message(payload: MessagePayload): void;
    keyRotation(payload: KeyRotationUpdatePayload): void;
    /** Whether nothing more begins. What waits is begun after the pause, or comes again to another process. */
    pause(isPaused: boolean): void;
}

/**
 * Hands over what arrives: once, in the order of its sender, and says so to the relay when the handler has ended well.
 */
export function createInbox(context: Context, store: IdentityStore, concurrency: number): Inbox {
    const { emit } = context;
    /** The ids that were handed over, and what was answered. */
    const handled = new Map<string, boolean | undefined>();
    /** The ids that stand in a chain. */
    const known = new Set<string>();
    /** By sender. The one that ran last stands last, so that all senders get their turn. */
    const chains = new Map<string, Chain>();
    let running = 0;
    let isPaused = false;
    let onMessage: MessageHandler | undefined;
    let onKeyRotation: KeyRotationHandler | undefined;

    const keyOf = ({ sender, id }: HandledId): string => `${sender} ${id}`;

    const remember = (one: HandledId): void => {
        handled.set(keyOf(one), one.answer);
        trim(handled, HANDLED_LIMIT);
    };

    const confirm = (job: Job, answer: boolean | undefined): void => {
        const frame = job.confirm(answer);
        // It cannot wait for the allowance: until it leaves, the relay holds back what comes next.
        if (frame.type === "KeyRotationAck") context.pacing.spend();
        context.write(frame);
    };

    /** What takes it; undefined while there is none. */
    const handlerOf = (what: Job["what"]): ((what: never) => unknown) | undefined =>
        "keyId" in what
            ? // An application without a handler for keys answers no: else the messages behind would wait for ever.
              (onKeyRotation ?? (onMessage && (() => false)))
            : onMessage;

    /** Not at once, so that an application may set both handlers before anything begins. */
    const advanceSoon = (): void => {
        queueMicrotask(advance);
    };

    function advance(): void {
        for (const chain of chains.values()) {
            if (isPaused || running >= concurrency) return;
            const [job] = chain.jobs;
            if (chain.isBusy || !job || !handlerOf(job.what)) continue;
            chain.isBusy = true;
            running++;
            void run(chain, job);
        }
    }

    async function run(chain: Chain, job: Job): Promise<void> {
        const { sender, id, what } = job;
        try {
            if (!job.done) {
                const answer = await handlerOf(what)?.(what as never);
                job.done = { sender, id };
                if ("keyId" in what) job.done.answer = answer === true;
            }
            // Before the Ack: after it the relay forgets the message, and only this memory tells a repeat from a new
            // one.
            await store.addHandled(job.done);
        } catch (error) {
            running--;
            if (job.done) emit("error", error);
            else emit("handlerError", { message: what, error });
            // The same job again after a while; the later ones of its sender wait.
            createTimer(context.clock).set(Math.min(RETRY * 2 ** chain.failures++, RETRY_MAX), () => {
                chain.isBusy = false;
                advance();
            });
            advance();
            return;
        }
        running--;
        remember(job.done);
        known.delete(keyOf(job));
        confirm(job, job.done.answer);
        chain.jobs.shift();
        chain.failures = 0;
        chain.isBusy = false;
        chains.delete(sender);
        if (chain.jobs.length > 0) chains.set(sender, chain);
        advance();
    }

    const take = (job: Job): void => {
        const key = keyOf(job);
        if (handled.has(key)) confirm(job, handled.get(key));
        else if (!known.has(key)) {
            known.add(key);
            const chain = chains.get(job.sender);
            if (chain) chain.jobs.push(job);
            else chains.set(job.sender, { jobs: [job], failures: 0, isBusy: false });
            advance();
        }
    };

    return {
        restore(all) {
            all.forEach(remember);
        },

        onMessage(handler) {
            onMessage = handler;
            advanceSoon();
        },

        onKeyRotation(handler) {
            onKeyRotation = handler;
            advanceSoon();
        },

        message(payload) {
            const what = createMessage(payload);
            const { message_id, sender_id } = payload;
            take({
                sender: what.from,
                id: what.id,
                what,
                confirm: () => ({ type: "Ack", payload: { message_id, sender_id } }),
            });
        },

        keyRotation({ sender_id, recipient_id, key_id, encrypted_key_package }) {
            const what: KeyRotation = { from: sender_id.toLowerCase(), keyId: key_id, package: encrypted_key_package };
            take({
                sender: what.from,
                id: `key:${JSON.stringify(key_id)}`,
                what,
                confirm: (answer) => ({
                    type: "KeyRotationAck",
                    payload: { sender_id: recipient_id, recipient_id: sender_id, key_id, success: answer === true },
                }),
            });
        },

        pause(paused) {
            isPaused = paused;
            advanceSoon();
        },
    };
}
