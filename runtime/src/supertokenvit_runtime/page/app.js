// The page: takes photographs in every way there is, has them answered, and shows the newest answer.
import { Problem } from "./problem.js";
import {
  hideMap, say, setOpacity, showAnswer, showChoices, showClasses, showExamples, showMap, showModels, showPhotograph,
  showProblem,
} from "./show.js";

const PLACES = {
  browser: "The model runs in your browser. Your photographs stay on this device.",
  server: "Your photographs are sent to the server that this page came from.",
};
const element = (id) => document.getElementById(id);
const inputs = [element("file"), element("camera")];

let load;
let answer = null;
let explain = null;
let newest = 0; // counts photographs and models, so that a late answer does not replace a newer one
let latest = null;

/** Runs a task that shows something when it is done, unless a newer one has begun meanwhile. */
async function run(task) {
  const mine = ++newest;
  element("page").setAttribute("aria-busy", "true");
  try {
    const show = await task();
    if (mine === newest) show();
  } catch (error) {
    if (mine !== newest) return;
    showProblem(error instanceof Problem ? error.message : `Something went wrong (${error.message}).`);
  }
  if (mine === newest) element("page").setAttribute("aria-busy", "false");
}

function use(name) {
  answer = null;
  say("The model is being loaded.");
  for (const input of inputs) input.disabled = true;
  return run(async () => {
    const model = await load(name);
    return () => {
      ({ answer, explain } = model);
      showClasses(model.classes);
      for (const input of inputs) input.disabled = false;
      say("Ready.");
      if (latest) look(latest.photograph, latest.name);
    };
  });
}

function look(photograph, name) {
  latest = { photograph, name };
  showPhotograph(photograph, name);
  showChoices([]);
  if (answer === null) return;
  say("Looking at the photograph.");
  run(async () => {
    const begin = performance.now();
    const found = await answer(photograph);
    return () => {
      showAnswer(found, (performance.now() - begin) / 1000);
      if (explain) showChoices(found.labels);
    };
  });
}

function lookFor(label) {
  hideMap();
  if (!label) return say("");
  say(`Looking for what spoke for ${label}.`);
  run(async () => {
    const map = await explain(latest.photograph, label);
    return () => showMap(map, label);
  });
}

element("why").onchange = ({ target }) => lookFor(target.value);
element("opacity").oninput = setOpacity;

async function lookAtExample(url, name) {
  const response = await fetch(url).catch(() => null);
  if (response?.ok) look(await response.blob(), name);
  else showProblem("This example could not be loaded.");
}

function lookAtFirst(files) {
  if (files.length > 0) look(files[0], files[0].name);
  else showProblem("There is no picture in what you dropped or pasted.");
}

for (const input of inputs) {
  input.onchange = () => {
    if (input.files.length > 0) lookAtFirst(input.files);
    input.value = ""; // so that choosing the same file again is a change
  };
}
document.onpaste = (event) => lookAtFirst(event.clipboardData.files);
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("over");
};
document.ondragleave = (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("over");
};
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  lookAtFirst(event.dataTransfer.files);
};

async function begin() {
  const response = await fetch("models.json").catch(() => null);
  if (!response?.ok) throw new Problem("The list of models could not be loaded. Load this page again.");
  const listing = await response.json();
  const { answers, models, examples } = listing;
  const source = await (answers === "server" ? import("./server.js") : import("./browser.js"));
  load = (name) => source.load(name, listing);
  element("place").textContent = PLACES[answers];
  showExamples(examples, lookAtExample);
  showModels(models, use);
  await use(models[0]);
}

begin().catch((error) => showProblem(error.message));
