// Copy buttons. Without this file, everything can be read and copied by hand.
"use strict";

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const text = source.textContent;
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    // The clipboard needs HTTPS or localhost: select the text, and try the old way.
    const range = document.createRange();
    range.selectNodeContents(source);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    done = document.execCommand("copy");
  }
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

// The order of bases, by dragging and by buttons. Without this file, the numbers are typed.
function numbered(list) {
  [...list.children].forEach((item, at) => { item.querySelector("[name=place]").value = at + 1; });
}

function moved(list, item, before) {
  list.insertBefore(item, before);
  numbered(list);
}

for (const list of document.querySelectorAll("ol[data-sortable]")) {
  for (const hint of list.parentElement.querySelectorAll("[data-plain]")) { hint.hidden = true; }
  let dragged = null;
  for (const item of list.children) {
    const name = item.querySelector("[name=base]").value;
    const place = item.querySelector("[name=place]");
    place.type = "hidden";
    item.draggable = true;
    const button = (text, what, act) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = text;
      made.setAttribute("aria-label", `${what} ${name}`);
      made.addEventListener("click", () => { act(); made.focus(); });
      item.append(made);
    };
    button("↑", "Move up", () => { if (item.previousElementSibling) moved(list, item, item.previousElementSibling); });
    button("↓", "Move down", () => { if (item.nextElementSibling) moved(list, item.nextElementSibling, item); });
    button("×", "Remove", () => { item.remove(); numbered(list); });
    item.addEventListener("dragstart", () => { dragged = item; });
    item.addEventListener("dragover", (event) => { if (dragged) { event.preventDefault(); item.classList.add("over"); } });
    item.addEventListener("dragleave", () => item.classList.remove("over"));
    item.addEventListener("drop", (event) => {
      event.preventDefault();
      item.classList.remove("over");
      if (dragged && dragged !== item) {
        const down = dragged.compareDocumentPosition(item) & Node.DOCUMENT_POSITION_FOLLOWING;
        moved(list, dragged, down ? item.nextElementSibling : item);
      }
      dragged = null;
    });
  }
}

// Uploads with progress, also by dropping files on the form. Without this file, the form is sent as it is.
function send(form) {
  const progress = form.querySelector("progress");
  const said = form.querySelector("output");
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.setRequestHeader("X-Requested-With", "deployer");
  request.upload.addEventListener("progress", (event) => {
    progress.hidden = false;
    progress.value = event.total ? event.loaded / event.total : 0;
    said.textContent = event.loaded < event.total ? `${Math.floor(100 * progress.value)} %` : "Storing…";
  });
  request.addEventListener("load", () => {
    const next = request.getResponseHeader("X-Location");
    if (next) {
      window.location.assign(next);
      return;
    }
    progress.hidden = true;
    const why = new DOMParser().parseFromString(request.responseText, "text/html").querySelector("[role=alert]");
    said.textContent = why ? why.textContent : `The server answered ${request.status}.`;
  });
  request.addEventListener("error", () => {
    progress.hidden = true;
    said.textContent = "The connection broke off: nothing more was uploaded.";
  });
  request.send(new FormData(form));
}

for (const form of document.querySelectorAll("form[data-upload]")) {
  form.addEventListener("submit", (event) => { event.preventDefault(); send(form); });
  form.addEventListener("dragover", (event) => { event.preventDefault(); form.classList.add("over"); });
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    form.querySelector("input[type=file]").files = event.dataTransfer.files;
    form.requestSubmit();
  });
}
