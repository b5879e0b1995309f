// Answers by asking the server that this page came from. browser.js has the same one function, and needs no server.
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
 * Returns a function that answers for a photograph; see browser.js. What the model knows is left to the server.
 *
 * @param {string} name - Of the model.
 */
export async function load(name) {
  const url = new URL(`v1/predict?topk=5&model=${encodeURIComponent(name)}`, document.baseURI);
  const answer = async (photograph) => {
    const options = { method: "POST", body: photograph, headers: { "Content-Type": "application/octet-stream" } };
    const response = await fetch(url, options).catch(() => null);
    if (response === null) throw new Problem("The server does not answer.");
    if (!response.ok) throw new Problem(REASONS[response.status] ?? `The server could not answer (${response.status}).`);
    return (await response.json()).predictions[0];
  };
  return { classes: [], answer };
}
