// What the page shows of an answer, and of what there is to choose from.
import { paint } from "./heat.js";

const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const element = (id) => document.getElementById(id);

/** Shows the answer as bars, and says it in a sentence to those who do not see them. */
export function showAnswer({ labels, probabilities }, seconds) {
  const shown = probabilities.map((probability) => percent.format(probability));
  element("bars").replaceChildren(...labels.map((label, k) => bar(label, probabilities[k], shown[k])));
  element("bars").hidden = false;
  element("result").hidden = false;
  const heard = document.createElement("span");
  heard.className = "unseen";
  heard.textContent = `Most likely ${labels[0]}, ${shown[0]}. `;
  say(`Answered in ${seconds < 10 ? seconds.toFixed(2) : seconds.toFixed(0)} seconds.`);
  element("status").prepend(heard);
}

function bar(label, probability, shown) {
  const row = document.createElement("li");
  const name = document.createElement("span");
  const value = document.createElement("span");
  const track = document.createElement("span");
  name.textContent = label;
  name.className = "label";
  value.textContent = shown;
  value.className = "value";
  track.className = "track";
  track.append(document.createElement("span"));
  track.firstChild.style.width = `${100 * probability}%`;
  row.append(name, value, track);
  return row;
}

/** Offers to paint what spoke for each class of an answer, or takes the offer back. */
export function showChoices(labels) {
  hideMap();
  element("why").replaceChildren(new Option("nothing", ""), ...labels.map((label) => new Option(label, label)));
  element("heat").hidden = labels.length === 0;
  element("opacity").disabled = true;
}

/** Paints over the photograph what spoke for a class, or says that nothing did. */
export function showMap(map, label) {
  if (!map.patches.flat().some((value) => value > 0)) return say(`Nothing in this photograph spoke for ${label}.`);
  const { naturalWidth: width, naturalHeight: height } = element("picture");
  paint(element("map"), map, width, height);
  element("map").setAttribute("aria-label", `What spoke for ${label}, in colour`);
  element("map").hidden = element("opacity").disabled = false;
  setOpacity();
  say(`The colour shows what spoke for ${label}.`);
}

/** Makes the colour as strong as the slider says. */
export function setOpacity() {
  element("map").style.opacity = element("opacity").value / 100;
}

/** Takes the colour away. */
export function hideMap() {
  element("map").hidden = element("opacity").disabled = true;
}

/** Says what is going on, and takes back what was said before. */
export function say(text) {
  element("problem").textContent = "";
  element("status").textContent = text;
}

/** Says what went wrong; an older answer, which belongs to another photograph, goes away. */
export function showProblem(text) {
  element("status").textContent = "";
  element("bars").hidden = true;
  element("result").hidden = element("shown").hidden;
  showChoices([]);
  element("problem").textContent = text;
}

/** Shows the photograph itself. Where the browser cannot, the place for it goes away. */
export function showPhotograph(photograph, name) {
  const picture = element("picture");
  URL.revokeObjectURL(picture.src);
  picture.onload = () => {
    element("result").hidden = element("shown").hidden = false;
    element("shown").scrollIntoView({ block: "nearest" });
  };
  picture.onerror = () => {
    element("shown").hidden = true;
    element("result").hidden = element("bars").hidden;
  };
  picture.alt = name ? `Your photograph: ${name}` : "Your photograph";
  picture.src = URL.createObjectURL(photograph);
}

/** Lists what the model knows. */
export function showClasses(classes) {
  element("known").hidden = classes.length === 0;
  element("count").textContent = `It knows ${classes.length} ${classes.length === 1 ? "thing" : "things"}, and nothing else`;
  element("classes").textContent = classes.join(", ");
}

/** Fills the list of models, which is only there if there are several. */
export function showModels(names, chosen) {
  const options = names.map((name) => new Option(name, name));
  element("model").replaceChildren(...options);
  element("model").onchange = ({ target }) => chosen(target.value);
  element("choice").hidden = names.length < 2;
}

/** Shows the examples as buttons. */
export function showExamples(examples, chosen) {
  element("tiles").replaceChildren(...examples.map((example) => tile(example, chosen)));
  element("examples").hidden = examples.length === 0;
}

function tile({ file, name }, chosen) {
  const place = document.createElement("li");
  const button = document.createElement("button");
  const picture = document.createElement("img");
  picture.src = `examples/${encodeURIComponent(file)}`;
  picture.alt = `Example: ${name}`;
  picture.loading = "lazy";
  button.type = "button";
  button.onclick = () => chosen(picture.src, name);
  button.append(picture);
  place.append(button);
  return place;
}
