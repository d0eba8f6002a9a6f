import { randomUUID } from "node:crypto";
import { mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

/** A log is rewritten when it has this many lines more than twice what it stands for. */
const SLACK = 1000;

/** Writes a file in such a way that a crash leaves the old content or the new one. */
export async function writeAtomically(path: string, content: string): Promise<void> {
    const temporary = `${path}.${randomUUID()}.tmp`;
    try {
        const file = await open(temporary, "wx", 0o600);
        try {
            await file.writeFile(content);
            await file.sync();
        } finally {
            await file.close();
        }
        await rename(temporary, path);
    } catch (error) {
        await rm(temporary, { force: true });
        throw error;
    }
    await syncDirectory(dirname(path));
}

/** Makes the names in a directory survive a crash. */
export async function syncDirectory(path: string): Promise<void> {
    // Windows cannot open directories, and needs no sync of them.
    if (process.platform === "win32") return;
    const directory = await open(path, "r");
    try {
        await directory.sync();
    } finally {
        await directory.close();
    }
}

export async function readIfThere(path: string): Promise<string | undefined> {
    try {
        return await readFile(path, "utf8");
    } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
        throw error;
    }
}

interface Waiting {
    line: string;
    resolve: () => void;
    reject: (error: unknown) => void;
}

/**
 * Values by key in a file of lines: each line is `[key, value]`, or `[key]` where the value was deleted. Changes that
 * come while others are being written share one sync.
 */
export class Log<T> {
    readonly #path: string;
    readonly #limit: number;
    readonly #values = new Map<string, T>();
    #opened: Promise<void> | undefined;
    #waiting: Waiting[] = [];
    #isWriting = false;
    /** The lines of the file; infinite if it must be written anew before anything is added. */
    #lines = Infinity;

    /** `limit`: only the newest values are kept. */
    constructor(path: string, limit = Infinity) {
        this.#path = path;
        this.#limit = limit;
    }

    /** All values, oldest first. */
    async values(): Promise<T[]> {
        await this.#open();
        return [...this.#values.values()];
    }

    async set(key: string, value: T): Promise<void> {
        await this.#open();
        this.#put(key, value);
        await this.#write(JSON.stringify([key, value]));
    }

    async delete(key: string): Promise<void> {
        await this.#open();
        if (this.#values.delete(key)) await this.#write(JSON.stringify([key]));
    }

    #open(): Promise<void> {
        this.#opened ??= this.#read().catch((error: unknown) => {
            this.#opened = undefined;
            throw error;
        });
        return this.#opened;
    }

    async #read(): Promise<void> {
        await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
        const lines = ((await readIfThere(this.#path)) ?? "").split("\n");
        // After the last line break stands nothing, or what a crash cut off: nobody was told that it is stored.
        const torn = lines.pop() !== "";
        this.#values.clear();
        lines.forEach((line, at) => {
            let record: [string, T?];
            try {
                record = JSON.parse(line) as [string, T?];
            } catch (error) {
                throw new Error(`${this.#path}, line ${String(at + 1)} is damaged.`, { cause: error });
            }
            const [key, value] = record;
            if (value === undefined) this.#values.delete(key);
            else this.#put(key, value);
        });
        this.#lines = torn || lines.length === 0 ? Infinity : lines.length;
    }

    #put(key: string, value: T): void {
        this.#values.set(key, value);
        for (const oldest of this.#values.keys()) {
            if (this.#values.size <= this.#limit) break;
            this.#values.delete(oldest);
        }
    }

    #write(line: string): Promise<void> {
        return new Promise((resolve, reject) => {
            this.#waiting.push({ line, resolve, reject });
            if (!this.#isWriting) void this.#writeAll();
        });
    }

    async #writeAll(): Promise<void> {
        this.#isWriting = true;
        while (this.#waiting.length > 0) {
            const batch = this.#waiting;
            this.#waiting = [];
            try {
                if (this.#lines + batch.length > 2 * this.#values.size + SLACK) await this.#rewrite();
                else await this.#append(batch);
                for (const { resolve } of batch) resolve();
            } catch (error) {
                // Part of a line may stand in the file.
                this.#lines = Infinity;
                for (const { reject } of batch) reject(error);
            }
        }
        this.#isWriting = false;
    }

    async #append(batch: Waiting[]): Promise<void> {
        const file = await open(this.#path, "a", 0o600);
        try {
            await file.writeFile(batch.map(({ line }) => `${line}\n`).join(""));
            await file.datasync();
        } finally {
            await file.close();
        }
        this.#lines += batch.length;
    }

    /** Writes what the log stands for, and no more. */
    async #rewrite(): Promise<void> {
        const lines = [...this.#values].map((record) => `${JSON.stringify(record)}\n`);
        await writeAtomically(this.#path, lines.join(""));
        this.#lines = lines.length;
    }
}
