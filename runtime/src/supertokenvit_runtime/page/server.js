// Answers by asking the server that this page came from. browser.js has the same functions, and needs no server.
import { Problem } from "./problem.js";

const REASONS = {
  401: "The server wants a token before it answers.",
  413: "This file is too large for the server.",
  415: "This file is not a picture that the server can read.",
  422: "This picture is damaged or too large.",
  429: "The server is busy. Try again in a moment.",
  503: "The server is busy. Try again in a moment.",
  504: "The server took too long. Try again in a moment.",
};

/**
 * Returns functions that answer and explain; see browser.js. What the model knows is left to the server.
 *
 * @param {string} name - Of the model.
 * @param {{explained: ?string[]}} listing - Whose answers can be explained.
 */
export async function load(name, { explained }) {
  const model = encodeURIComponent(name);
  const answer = async (photograph) => (await ask(`v1/predict?topk=5&model=${model}`, photograph)).predictions[0];
  const explain = async (photograph, label) => {
    const address = `v1/explain?model=${model}&class=${encodeURIComponent(label)}`;
    const { patches, box, size } = (await ask(address, photograph)).explanation;
    return { patches, box: box.map((edge, number) => edge / size[number % 2]) };
  };
  return { classes: [], answer, explain: explained?.includes(name) ? explain : null };
}

async function ask(address, photograph) {
  const options = { method: "POST", body: photograph, headers: { "Content-Type": "application/octet-stream" } };
  const response = await fetch(new URL(address, document.baseURI), options).catch(() => null);
  if (response === null) throw new Problem("The server does not answer.");
  if (!response.ok) throw new Problem(REASONS[response.status] ?? `The server could not answer (${response.status}).`);
  return response.json();
}
