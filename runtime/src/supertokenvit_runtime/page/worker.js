// Runs the model in a thread of its own, so that the page answers to its user meanwhile.
import * as ort from "./onnxruntime/ort.wasm.bundle.min.mjs";
import { read } from "./photograph.js";
import { Problem } from "./problem.js";

ort.env.wasm.numThreads = 1; // more need headers that a plain static server does not send
ort.env.wasm.wasmPaths = { wasm: new URL("onnxruntime/ort-wasm-simd-threaded.wasm", import.meta.url).href };

let session;
let enough;

async function load({ model, enough: pixels }) {
  session = await ort.InferenceSession.create(model);
  enough = pixels;
}

async function answer({ photograph }) {
  const { pixels, height, width } = await read(photograph, enough);
  const outputs = await session.run({ photographs: new ort.Tensor("uint8", pixels, [1, height, width, 3]) });
  return Array.from(outputs.probabilities.data);
}

self.onmessage = async ({ data: { number, ...task } }) => {
  try {
    self.postMessage({ number, result: await ("model" in task ? load(task) : answer(task)) });
  } catch (error) {
    self.postMessage({ number, problem: error instanceof Problem ? error.message : null, detail: String(error) });
  }
};
