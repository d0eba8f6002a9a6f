// Prints the errors and warnings that the AsyncAPI parser finds in a document; exits with 1 if there is an error, or no document.
import { readFile } from "node:fs/promises";
import { DiagnosticSeverity, Parser } from "@asyncapi/parser";

const path = process.argv[2];
const { document, diagnostics } = await new Parser().parse(await readFile(path, "utf8"), { source: path });
for (const { severity, code, message, path: place, range } of diagnostics) {
  // The rest is advice, such as to use the newest version of AsyncAPI.
  if (severity > DiagnosticSeverity.Warning) continue;
  const at = `${path}:${range.start.line + 1}`;
  console.error(`${at}: ${DiagnosticSeverity[severity]} ${code}: ${message} (${place.join(".")})`);
}
const errors = diagnostics.filter(({ severity }) => severity === DiagnosticSeverity.Error);
if (errors.length > 0 || document === undefined) {
  process.exit(1);
}
const examples = document.messages().all().reduce((sum, message) => sum + message.examples().all().length, 0);
if (document.operations().all().length === 0 || examples === 0) {
  console.error(`${path}: no operation or no example was read`);
  process.exit(1);
}
console.log(`${path}: AsyncAPI ${document.version()}, ${document.messages().all().length} messages, ${examples} examples, no error`);
