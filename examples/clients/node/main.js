// node main.js FIRST.ppm LAST.ppm --out FOLDER [--frames 17] [--prompt TEXT] [--engine ID] [--seed N] [--set NAME=VALUE]
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { inbetweens } from "./client.js";

function readPpm(path) {
  const bytes = readFileSync(path);
  const found = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 64).toString("latin1"));
  if (!found) throw new Error(`${path}: is no binary PPM with 8 bits`);
  return { width: Number(found[1]), height: Number(found[2]), rgb: bytes.subarray(found[0].length) };
}

try {
  const [text, several] = [{ type: "string" }, { type: "string", multiple: true }];
  const options = { out: text, frames: text, prompt: text, engine: text, seed: text, set: several };
  const { values, positionals } = parseArgs({ allowPositionals: true, options });
  const [first, last] = positionals.map(readPpm);
  const num_frames = Number(values.frames ?? 17);
  const typed = (value) => (/^(true|false|-?[\d.]+)$/.test(value) ? JSON.parse(value) : value);
  const params = (values.set ?? []).map((setting) => setting.split("=", 2)).map(([name, value]) => [name, typed(value)]);
  mkdirSync(values.out, { recursive: true });
  process.once("SIGINT", () => (process.exitCode = 130));
  for await (const frame of inbetweens({
    width: first.width, height: first.height, num_frames, keyframes: [[0, first.rgb], [num_frames - 1, last.rgb]],
    prompt: values.prompt, engine: values.engine, seed: Number(values.seed ?? 0), encoding: "png",
    params: Object.fromEntries(params),
  })) {
    const path = `${values.out}/${String(frame.index).padStart(4, "0")}.png`;
    writeFileSync(`${path}.part`, frame.data);
    renameSync(`${path}.part`, path);
    if (process.exitCode) break;
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 2;
}
