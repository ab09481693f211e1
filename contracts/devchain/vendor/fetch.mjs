// Extracts the two vendored files from npm's @ton/sandbox (see README.md). Usage: node fetch.mjs PACKAGE_DIR
import { createRequire } from "node:module";
import { writeFileSync } from "node:fs";
import { execFileSync } from "node:child_process";

const require = createRequire(import.meta.url);
const dist = `${process.argv[2]}/dist`;
const wasm = require(`${dist}/executor/emulator-emscripten.wasm.js`).EmulatorEmscriptenWasm;
const config = Object.values(require(`${dist}/config/slimConfig.js`)).find((x) => typeof x === "string");
writeFileSync("emulator.wasm", Buffer.from(wasm, "base64"));
writeFileSync("config.boc", Buffer.from(config, "base64"));
execFileSync("xz", ["-9", "--force", "emulator.wasm"]);
