// Which instructions of the contracts the tests execute, told in lines of the Tolk sources.
//
//   node coverage.mjs TRACE.json      exit code 1 below 95 %, or where something uncovered has no reason
//
// TRACE.json (tests/contracts/tools/tracing.py) maps the hash of each code cell to the offsets of the instructions
// that ran. The code is disassembled to know all instructions and where they stand. The lines come from the
// compiler's Fift listing, whose comments name them: listing and disassembly hold the same instructions in
// the same order, once blocks and cells are laid flat. What need not run is told in uncovered.json with the reason.
import { readFileSync } from "node:fs";
import { Cell } from "@ton/core";
import { runTolkCompiler } from "@ton/tolk-js";
import { runtime, text, trace } from "ton-assembly";

const LEAST_PERCENT = 95;
const NAMES = ["pool_operator", "reward_distribution", "participant_registry"];
const SOURCES = new URL("../src/", import.meta.url);
const read = (file) => readFileSync(new URL(file, SOURCES), "utf8");

async function compile(name) {
  const result = await runTolkCompiler({
    entrypointFileName: `${name}.tolk`,
    fsReadCallback: read,
    withSrcLineComments: true,
    withStackComments: false,
  });
  if (result.status === "error") {
    throw new Error(`${name}: ${result.message}`);
  }
  const shipped = JSON.parse(readFileSync(new URL(`../artifacts/${name}.json`, import.meta.url), "utf8"));
  if (shipped.code_hash !== result.codeHashHex.toLowerCase()) {
    throw new Error(`${name}: the artifact is not what the sources compile to; run make contracts`);
  }
  return { code: Cell.fromBase64(result.codeBoc64), listing: result.fiftCode };
}

// Every instruction of the code: its name, its method, and the places (cell hash, offset) where it stands.
function disassemble(code) {
  const printed = text.print(runtime.decompileCell(code));
  const parsed = text.parse("code.tasm", printed);
  const [again, mapping] = runtime.compileCellWithMapping(parsed.instructions);
  if (!again.hash().equals(code.hash())) {
    throw new Error("the disassembled code does not assemble to itself");
  }
  const { cells, dictionaryCells } = trace.createMappingInfo(mapping);
  const shifted = new Map(dictionaryCells.map((it) => [it.dataCell, it]));
  const places = new Map();
  for (const [hash, cell] of Object.entries(cells)) {
    const shift = shifted.get(hash);
    for (const { loc, offset } of cell.instructions) {
      for (const line of loc === undefined ? [] : [loc.line, ...loc.otherLines]) {
        places.set(line, [...(places.get(line) ?? []), `${hash}:${offset}`]);
        if (shift !== undefined) {
          places.get(line).push(`${shift.cell}:${offset + shift.offset}`);
        }
      }
    }
  }
  const instructions = [];
  const lines = printed.split("\n");
  let method = null;
  for (const i of inOrder(lines, 0, lines.length)) {
    method = lines[i] === "]" ? null : (/^ {4}(\d+) => \{/.exec(lines[i])?.[1] ?? method);
    if (method !== null && places.has(i) && !/^(embed|ref)\b/.test(lines[i].trim())) {
      instructions.push({ name: lines[i].trim().split(/[ {]/)[0], method, places: places.get(i) });
    }
  }
  return instructions;
}

// The numbers of the lines as the listing has them. Two things stand otherwise in the disassembly: a constant in a
// cell of its own is printed as if it were code, and the second branch of an IFREFELSE comes before the first.
function inOrder(lines, from, to) {
  const order = [];
  let block = 0;
  for (let i = from; i < to; i++) {
    const opens = /^( *)(.*) \{$/.exec(lines[i]);
    const end = opens === null ? i : lines.indexOf(`${opens[1]}}`, i);
    const constant = opens?.[2] === "PUSHREFSLICE";
    const whole = [i, ...(opens === null || constant ? [] : inOrder(lines, i + 1, end))];
    order.splice(opens?.[2] === "IFREFELSE" ? block : order.length, 0, ...whole);
    block = opens === null ? block : order.length - whole.length;
    i = end;
  }
  return order;
}

// Every instruction of the listing with the source line that it belongs to, by the number of its method. What is
// called as INLINECALLDICT stands in the code of whoever calls it, if it was defined before.
function readListing(listing) {
  const files = /automatically generated from (.*)/.exec(listing)[1].split(", ");
  const lines = new Map(files.map((file) => [file, read(file).split("\n")]));
  const [numbers, bodies] = [new Map(), new Map()];
  let [procedures, body, file, at] = [0, [], null, null];
  for (const line of listing.split("\n").map((it) => it.trim())) {
    const declared = /^(\d+) DECLMETHOD (.*)|^DECLPROC (.*)/.exec(line);
    const comment = /^\/\/ (\d+): (.*)/.exec(line);
    const begun = /^(\S+) PROC\w*:<\{/.exec(line);
    const inlined = /^(\S+) INLINECALLDICT$/.exec(line);
    if (declared !== null) {
      procedures += declared[1] === undefined ? 1 : 0;
      numbers.set(declared[2] ?? declared[3], declared[1] ?? String(procedures));
    } else if (/^\/\/ (\S+\.tolk):\d+$/.test(line)) {
      file = line.slice(3).split(":")[0];
    } else if (begun !== null) {
      body = [];
      bodies.set(begun[1], body);
    } else if (comment !== null) {
      at = locate(lines, file, Number(comment[1]), comment[2]);
    } else if (inlined !== null && bodies.has(inlined[1])) {
      body.push({ ...at, name: "CALLREF", inlined: inlined[1] });
    } else if (/^[^/"]/.test(line) && !/<\{|^\}|PROGRAM|END>c/.test(line)) {
      const names = line.split(" ").filter((word) => /^-?\d?[A-Z]/.test(word) && !word.endsWith("()"));
      body.push(...names.map((name) => ({ ...at, name })));
    }
  }
  const whole = (list) => list.flatMap((it) => (it.inlined === undefined ? [it] : [it, ...whole(bodies.get(it.inlined))]));
  return new Map([...bodies].map(([name, list]) => [numbers.get(name), whole(list)]));
}

// The comment of inlined code names no file: it is the one that has such a line there.
function locate(lines, file, number, start) {
  const fits = ([, content]) => content[number - 1]?.trim().startsWith(start.slice(0, 40));
  const found = [...lines].filter(fits).map(([name]) => name);
  const name = found.includes(file) ? file : (found[0] ?? "the standard library");
  return { file: name, line: number, source: lines.get(name)?.[number - 1].trim() ?? start };
}

// Gives each instruction its line: that of the same instruction in the listing. The assembler has other names for
// a few and makes several of some; those belong to the line before. Every throw must be found, for they are asserts.
function withLines(instructions, methods) {
  const placed = [];
  for (const method of new Set(instructions.map((it) => it.method))) {
    const listed = methods.get(method);
    const own = instructions.filter((it) => it.method === method);
    const pairs = align(own.map(plainName), listed.map(plainName));
    let at = listed[0];
    own.forEach((instruction, i) => {
      at = listed[pairs.get(i)] ?? at;
      if (/^THROW/.test(instruction.name) && !pairs.has(i)) {
        throw new Error(`method ${method}: the listing has no place for ${instruction.name}, instruction ${i}`);
      }
      placed.push({ ...instruction, at });
    });
  }
  return placed;
}

// PUSHINT_8 is listed as PUSHINT, THROWIF_SHORT as THROWIF.
const plainName = ({ name }) => name.replace(/_.*/, "");

// Longest common subsequence: index in `left` -> index in `right`.
function align(left, right) {
  const width = right.length + 1;
  const best = new Uint16Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      const [down, across, both] = [best[(i + 1) * width + j], best[i * width + j + 1], best[(i + 1) * width + j + 1]];
      best[i * width + j] = left[i] === right[j] ? both + 1 : Math.max(down, across);
    }
  }
  const pairs = new Map();
  for (let i = 0, j = 0; i < left.length && j < right.length; ) {
    if (left[i] === right[j]) {
      pairs.set(i++, j++);
    } else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) {
      i++;
    } else {
      j++;
    }
  }
  return pairs;
}

function report(name, placed, ran, reasons) {
  const covered = (it) => it.places.some((place) => ran.has(place));
  // Cells of equal content are one cell, however often the code refers to it.
  const instructions = [...new Map(placed.map((it) => [it.places[0], it])).values()];
  const missed = instructions.filter((it) => !covered(it));
  const percent = (100 * (instructions.length - missed.length)) / instructions.length;
  console.log(`${name}: ${instructions.length - missed.length} of ${instructions.length} instructions (${percent.toFixed(2)} %)`);
  const places = new Map();
  for (const { at, name: mnemonic } of missed) {
    const key = `${at.file}:${at.line}`;
    places.set(key, { at, names: [...(places.get(key)?.names ?? []), mnemonic] });
  }
  let unexplained = 0;
  for (const [key, { at, names }] of [...places].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))) {
    const reason = reasons[at.file]?.[at.source];
    unexplained += reason === undefined ? 1 : 0;
    console.log(`  ${key}: ${at.source}\n    ${names.join(" ")}\n    ${reason ?? "NO REASON GIVEN"}`);
  }
  return percent >= LEAST_PERCENT && unexplained === 0;
}

const traced = JSON.parse(readFileSync(process.argv[2], "utf8"));
const ran = new Set(Object.entries(traced).flatMap(([hash, offsets]) => offsets.map((it) => `${hash}:${it}`)));
const reasons = JSON.parse(readFileSync(new URL("uncovered.json", import.meta.url), "utf8"));
let good = true;
for (const name of NAMES) {
  const { code, listing } = await compile(name);
  const instructions = withLines(disassemble(code), readListing(listing));
  good = report(name, instructions, ran, reasons) && good;
}
process.exit(good ? 0 : 1);
