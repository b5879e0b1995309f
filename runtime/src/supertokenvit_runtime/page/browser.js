// Answers in the browser itself. server.js has the same functions, and asks a server.
import { Problem } from "./problem.js";

let worker;

/**
 * Loads a model.
 *
 * @param {string} name - Of its folder in `models`.
 * @returns {Promise<{classes: string[], answer: function(Blob): Promise<{labels: string[], probabilities: number[]}>,
 *   explain: ?function(Blob, string): Promise<{patches: number[][], box: number[]}>}>} What it knows, a function that
 *   answers for a photograph: the five likeliest classes, best first; and one that says what in it spoke for a class (see
 *   heat.js), if the model can.
 */
export async function load(name) {
  const folder = new URL(`models/${encodeURIComponent(name)}/`, document.baseURI);
  const response = await fetch(new URL("model.json", folder)).catch(() => null);
  if (!response?.ok) throw new Problem("The model could not be loaded. Load this page again.");
  const about = await response.json();
  const ask = start();
  const files = { model: new URL("model.onnx", folder).href, map: new URL("map.onnx", folder).href };
  await ask({ ...files, enough: about.enough }, "The model could not be loaded");
  const answer = async (photograph) => best(await ask({ photograph }, "The model could not answer"), about.classes);
  const explain = (photograph, label) =>
    ask({ photograph, target: about.classes.indexOf(label) }, "The heat map could not be made");
  return { classes: about.classes, answer, explain: about.explains ? explain : null };
}

/** Starts the thread, in place of that of an older model, and returns a function that gives it a task. */
function start() {
  worker?.terminate();
  const mine = new Worker(bootstrap(), { type: "module" });
  const waiting = new Map();
  worker = mine;
  mine.onmessage = ({ data: { number, result, problem, detail } }) => {
    const { resolve, reject, failure } = waiting.get(number);
    waiting.delete(number);
    if (detail === undefined) resolve(result);
    else reject(new Problem(problem ?? `${failure} (${detail}).`));
  };
  mine.onerror = () => {
    for (const { reject } of waiting.values()) reject(new Problem("This browser is too old for the model."));
  };
  let count = 0;
  return (task, failure) =>
    new Promise((resolve, reject) => {
      waiting.set(++count, { resolve, reject, failure });
      mine.postMessage({ number: count, ...task });
    });
}

/** A thread that begins in a blob keeps the rules of the page's Content-Security-Policy; one from a file has none. */
function bootstrap() {
  const line = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  return URL.createObjectURL(new Blob([line], { type: "text/javascript" }));
}

function best(probabilities, classes) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 5);
  return { labels: order.map((k) => classes[k]), probabilities: order.map((k) => probabilities[k]) };
}
