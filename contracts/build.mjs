// Compiles contracts/src/<name>.tolk into contracts/artifacts/<name>.json: compiler, code hash, code. What lies in
// src/devnet is for the embedded chain alone; its artifacts begin with `devnet_`.
//
//   node build.mjs           write the artifacts
//   node build.mjs --check   compile again and compare; exit code 1 if one differs
//
// The compiler is pinned by package-lock.json and its output depends on the sources alone, so the
// committed artifacts are what anyone gets who compiles the committed sources.
import { readFile, writeFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { getTolkCompilerVersion, runTolkCompiler } from "@ton/tolk-js";

const NAMES = ["pool_operator", "reward_distribution", "participant_registry", "devnet/cocoon_worker"];
const SOURCES = new URL("src/", import.meta.url);
const ARTIFACTS = new URL("artifacts/", import.meta.url);

async function compile(name) {
  const result = await runTolkCompiler({
    entrypointFileName: `${name}.tolk`,
    fsReadCallback: (path) => readFileSync(new URL(path, SOURCES), "utf8"),
  });
  if (result.status === "error") {
    throw new Error(`${name}: ${result.message}`);
  }
  const artifact = {
    name: artifactName(name),
    compiler: `tolk ${await getTolkCompilerVersion()}`,
    code_hash: result.codeHashHex.toLowerCase(),
    code_boc_base64: result.codeBoc64,
  };
  return JSON.stringify(artifact, null, 2) + "\n";
}

function artifactName(name) {
  return name.replace("/", "_");
}

let differ = false;
for (const name of NAMES) {
  const path = new URL(`${artifactName(name)}.json`, ARTIFACTS);
  const built = await compile(name);
  if (!process.argv.includes("--check")) {
    await writeFile(path, built);
  } else if ((await readFile(path, "utf8").catch(() => "")) !== built) {
    console.error(`${name}: the artifact is not what the sources compile to; run node build.mjs`);
    differ = true;
  }
}
process.exit(differ ? 1 : 0);
