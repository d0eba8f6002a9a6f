/** Lets go of the oldest until no more than `limit` are left. */
export function trim(all: Map<string, unknown> | Set<string>, limit: number): void {
    for (const oldest of all.keys()) {
        if (all.size <= limit) return;
        all.delete(oldest);
    }
}
