import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

/** The relay's program: `SEALPOST_BIN`, or what `cargo build --release` makes. */
function program(): string {
    const path = resolve(process.env["SEALPOST_BIN"] ?? "../../target/release/sealpost");
    if (!existsSync(path)) {
        throw new Error(
            `There is no relay at ${path}: build it with "cargo build --release", or name one by SEALPOST_BIN.`,
        );
    }
    return path;
}

/** A relay of its own for a test, in a directory of its own. */
export class Relay {
    readonly directory: string;
    #process: ChildProcess | undefined;
    #address = "127.0.0.1:0";

    private constructor(directory: string) {
        this.directory = directory;
    }

    static async start(settings: Record<string, string> = {}): Promise<Relay> {
        const relay = new Relay(await mkdtemp(join(tmpdir(), "sealpost-relay-")));
        await relay.run(settings);
        return relay;
    }

    get url(): string {
        return `ws://${this.#address}/ws`;
    }

    /** Starts the program, at the address that it had before. */
    async run(settings: Record<string, string> = {}): Promise<void> {
        const child = spawn(program(), ["--listen", this.#address, "--admin-listen", "127.0.0.1:0"], {
            cwd: this.directory,
            env: { ...process.env, SEALPOST__LIMITS__EXEMPT_CIDRS: "127.0.0.0/8", ...settings },
            stdio: ["ignore", "pipe", "pipe"],
        });
        this.#process = child;
        this.#address = await new Promise<string>((found, failed) => {
            const said: string[] = [];
            const read = (line: string): void => {
                said.push(line);
                const address = /is listening on (\S+)/.exec(line)?.[1];
                if (address !== undefined) found(address);
            };
            createInterface({ input: child.stdout }).on("line", read);
            createInterface({ input: child.stderr }).on("line", read);
            child.on("exit", () => {
                failed(new Error(`The relay ended: ${said.join("\n")}`));
            });
        });
    }

    async kill(signal: "SIGKILL" | "SIGTERM" = "SIGKILL"): Promise<void> {
        const child = this.#process;
        if (child?.exitCode !== null || child.signalCode !== null) return;
        await new Promise((ended) => {
            child.on("exit", ended);
            child.kill(signal);
        });
    }

    async stop(): Promise<void> {
        await this.kill();
        await rm(this.directory, { recursive: true });
    }
}
