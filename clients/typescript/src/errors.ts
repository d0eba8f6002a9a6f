/** What every error of this package extends. */
export class SealpostError extends Error {
    override name = "SealpostError";
}

/** The time to live passed before the relay had proof of a delivery. */
export class ExpiredError extends SealpostError {
    override name = "ExpiredError";
}

/** The relay or the peer said no. */
export class RefusedError extends SealpostError {
    override name = "RefusedError";
    /** The code of the relay's `Error`; undefined if it was the peer that refused. */
    readonly code: number | undefined;

    constructor(message: string, code?: number) {
        super(message);
        this.code = code;
    }
}

/** Nobody knows what became of it, and the client does not try any more. */
export class GaveUpError extends SealpostError {
    override name = "GaveUpError";
    /** Why, in words. */
    readonly reason: string;

    constructor(reason: string, options?: ErrorOptions) {
        super(`gave up: ${reason}`, options);
        this.reason = reason;
    }
}

/** A store failed, and with it what needed the store. */
export function storeFailed(cause: unknown): GaveUpError {
    return new GaveUpError(`the store failed: ${String(cause)}`, { cause });
}
