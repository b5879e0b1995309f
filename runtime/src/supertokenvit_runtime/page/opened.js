// Browsers load no modules from a folder on the disk, so only a plain script like this one can say what to do instead.
if (location.protocol === "file:") {
  document.getElementById("status").textContent = "";
  document.getElementById("problem").textContent =
    "This page cannot run when its file is opened directly. In its folder run: python -m http.server --bind 127.0.0.1 8000 " +
    "and then open http://127.0.0.1:8000/ in this browser.";
}
