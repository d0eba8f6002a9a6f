export interface BackoffSettings {
    /** Milliseconds that attempt 0 waits at most; other fixed waits are as much longer or shorter. */
    base: number;
    /** Milliseconds that any attempt waits at most. */
    max: number;
}

export interface Backoff {
    /** A random time that grows with the attempts. */
    next(): number;
    reset(): void;
}

/**
 * How long to wait before the next attempt to connect. Everybody is disconnected at once when a relay restarts: chance
 * spreads them.
 */
export function createBackoff({ base, max }: BackoffSettings, random: () => number): Backoff {
    let attempt = 0;
    return {
        next: () => random() * Math.min(max, base * 2 ** attempt++),
        reset() {
            attempt = 0;
        },
    };
}
