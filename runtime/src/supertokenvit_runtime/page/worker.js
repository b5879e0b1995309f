// Runs the model in a thread of its own, so that the page answers to its user meanwhile.
import * as ort from "./onnxruntime/ort.wasm.bundle.min.mjs";
import { read } from "./photograph.js";
import { Problem } from "./problem.js";

ort.env.wasm.numThreads = 1; // more need headers that a plain static server does not send
ort.env.wasm.wasmPaths = { wasm: new URL("onnxruntime/ort-wasm-simd-threaded.wasm", import.meta.url).href };

let session;
let enough;
let maps; // the graph of heat maps, which is fetched when the first one is wanted
let place;

async function load({ model, map, enough: pixels }) {
  session = await ort.InferenceSession.create(model);
  enough = pixels;
  place = map;
}

async function answer({ photograph }) {
  const { pixels, height, width } = await read(photograph, enough);
  const outputs = await session.run({ photographs: new ort.Tensor("uint8", pixels, [1, height, width, 3]) });
  return Array.from(outputs.probabilities.data);
}

async function explain({ photograph, target }) {
  maps ??= await ort.InferenceSession.create(place);
  const { pixels, height, width } = await read(photograph, enough);
  const { map, box } = await maps.run({
    photographs: new ort.Tensor("uint8", pixels, [1, height, width, 3]),
    target: new ort.Tensor("int64", [BigInt(target)], [1]),
  });
  const [, rows, columns] = map.dims;
  const patches = Array.from({ length: rows }, (_, row) => [...map.data.subarray(row * columns, (row + 1) * columns)]);
  return { patches, box: [...box.data] };
}

function done(task) {
  if ("model" in task) return load(task);
  return "target" in task ? explain(task) : answer(task);
}

self.onmessage = async ({ data: { number, ...task } }) => {
  try {
    self.postMessage({ number, result: await done(task) });
  } catch (error) {
    self.postMessage({ number, problem: error instanceof Problem ? error.message : null, detail: String(error) });
  }
};
