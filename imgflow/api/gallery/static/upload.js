// Uploads: files dropped anywhere, or chosen, go into the source and are followed until ready.

import { problemOf, root, say } from "./session.js";
import { mayWrite } from "./page.js";
import { arrive } from "./grid.js";
import { cardsIn, watch } from "./watching.js";

const AT_ONCE = 3;
const panel = document.getElementById("uploads");
const list = document.getElementById("uploads-list");
const summary = document.getElementById("uploads-summary");
const hint = document.getElementById("drop-hint");
const input = document.getElementById("files");
const mostBytes = Number(panel.dataset.mostBytes);

const waiting = [];
const uploads = [];
let going = 0;

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/** One file on its way. */
class Upload {
  constructor(file, key) {
    this.file = file;
    this.key = key;
    this.line = element("li", "upload");
    const name = element("bdi", "name", key);
    name.title = key;
    this.bar = document.createElement("progress");
    this.bar.max = 1;
    this.bar.value = 0;
    this.bar.setAttribute("aria-label", `Upload of ${key}`);
    this.word = element("span", "word");
    this.buttons = element("span", "buttons");
    this.line.append(name, this.bar, this.word, this.buttons);
    list.append(this.line);
    this.become("queued", "Queued");
  }

  become(state, word) {
    this.state = state;
    this.line.dataset.state = state;
    this.word.textContent = word;
    this.buttons.replaceChildren();
    tell();
  }

  offer(word, action) {
    const button = element("button", "", word);
    button.type = "button";
    button.setAttribute("aria-label", `${word}: ${this.key}`);
    button.addEventListener("click", action);
    this.buttons.append(button);
  }

  /** Send the body; resolves when it is there, or when it will not be. */
  send({ mayReplace = false } = {}) {
    const path = `/images/key:${encodeURIComponent(this.key)}/original`;
    this.become("sending", "0 %");
    return new Promise((resolve) => {
      // Not fetch, which does not tell how much was sent.
      const request = new XMLHttpRequest();
      request.open("PUT", root + path);
      if (!mayReplace) request.setRequestHeader("If-None-Match", "*");
      request.upload.addEventListener("progress", (event) => {
        if (!event.lengthComputable) return;
        this.bar.value = event.loaded / event.total;
        this.word.textContent = `${Math.floor((100 * event.loaded) / event.total)} %`;
      });
      request.addEventListener("load", () => {
        if (request.status < 300) this.sent(JSON.parse(request.responseText));
        else this.refused(problemOf(request.status, request.responseText));
        resolve();
      });
      request.addEventListener("error", () => {
        this.become("failed", "The connection broke");
        this.offer("Try again", () => enqueue(this));
        resolve();
      });
      request.send(this.file);
    });
  }

  sent(row) {
    this.bar.value = 1;
    if (row.state !== "pending") return this.done(row.id, row.state, row.reason);
    this.become("pending", "Waiting to be processed");
    this.bar.removeAttribute("value");
    this.bar.setAttribute("aria-label", `Processing of ${this.key}`);
    this.show(row.id);
    return undefined;
  }

  /** Put its card into the grid, and follow it. */
  async show(id) {
    const answer = await fetch(`${root}/gallery/cards?ids=${id}`);
    const [card] = answer.ok ? cardsIn(await answer.text()) : [];
    if (card !== undefined) arrive(card);
    const state = card?.dataset.state ?? "pending";
    const reason = () => card?.querySelector(".reason")?.textContent ?? "";
    if (state !== "pending") return this.done(id, state, reason());
    watch(id, "pending", (changed, became) => {
      arrive(changed);
      this.done(id, became, changed.querySelector(".reason")?.textContent ?? "");
    });
    return undefined;
  }

  done(id, state, reason) {
    this.bar.value = 1;
    this.become(state, state === "ready" ? "Ready" : `Rejected: ${(reason ?? "").trim()}`);
    const link = element("a", "button", "Show");
    link.href = `${root}/gallery/${id}`;
    link.setAttribute("aria-label", `Show ${this.key}`);
    this.buttons.append(link);
    say(`${this.key}: ${this.word.textContent}`);
  }

  refused(problem) {
    this.become("failed", problem.message);
    if (problem.code === "original_exists") {
      this.word.textContent = "A file with this name already exists";
      this.offer("Replace", () => enqueue(this, { mayReplace: true }));
    } else if (problem.status === 401 || problem.status >= 500) {
      this.offer("Try again", async () => { if (await mayWrite()) enqueue(this); });
    }
  }
}

function tell() {
  const count = (...states) => uploads.filter((one) => states.includes(one.state)).length;
  const parts = [[count("queued", "sending"), "uploading"], [count("pending"), "waiting"], [count("ready"), "ready"],
    [count("rejected"), "rejected"], [count("failed"), "failed"]];
  summary.textContent = parts.filter(([n]) => n > 0).map(([n, word]) => `${n} ${word}`).join(" · ");
}

function enqueue(upload, options = {}) {
  upload.become("queued", "Queued");
  waiting.push([upload, options]);
  work();
}

async function work() {
  while (going < AT_ONCE && waiting.length > 0) {
    const [upload, options] = waiting.shift();
    going += 1;
    upload.send(options).finally(() => { going -= 1; work(); });
  }
}

async function take(files) {
  if (files.length === 0 || !(await mayWrite())) return;
  const folder = document.getElementById("folder").value.trim().replace(/^\/+|\/+$/g, "");
  panel.hidden = false;
  for (const [file, path] of files) {
    const upload = new Upload(file, folder ? `${folder}/${path}` : path);
    uploads.push(upload);
    if (file.size > mostBytes) upload.become("failed", `Larger than ${mostBytes.toLocaleString()} bytes`);
    else enqueue(upload);
  }
}

/** All files of what was dropped, folders included, each with its path. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files].map((file) => [file, file.name]);
  const found = [];
  async function visit(entry, prefix) {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push([file, prefix + file.name]);
      return;
    }
    const reader = entry.createReader();
    // A reader gives some entries at a time, and none at its end.
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (some.length === 0) return;
      for (const child of some) await visit(child, `${prefix}${entry.name}/`);
    }
  }
  for (const entry of entries) await visit(entry, "");
  return found;
}

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

document.addEventListener("dragenter", (event) => { if (hasFiles(event)) hint.hidden = false; });
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
});
document.addEventListener("dragleave", (event) => { if (event.relatedTarget === null) hint.hidden = true; });
document.addEventListener("drop", async (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  hint.hidden = true;
  take(await filesOf(event.dataTransfer));
});

document.getElementById("upload").addEventListener("click", async () => {
  if (await mayWrite()) input.click();
});
input.addEventListener("change", () => {
  take([...input.files].map((file) => [file, file.name]));
  input.value = "";
});
document.getElementById("uploads-close").addEventListener("click", () => { panel.hidden = true; });
window.addEventListener("beforeunload", (event) => {
  if (uploads.some((one) => one.state === "queued" || one.state === "sending")) event.preventDefault();
});
