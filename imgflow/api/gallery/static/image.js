// The page of one image: it follows its state, asks for another try, and leads to the neighbours.

import { ask, say } from "./session.js";
import { isTyping, mayWrite } from "./page.js";
import { watch } from "./watching.js";

const { id, state } = document.getElementById("image").dataset;
const retry = document.getElementById("retry");

// Once it is processed the page is another: pictures, metadata and history.
const follow = () => watch(id, "pending", () => location.reload());

retry?.addEventListener("click", async () => {
  if (!(await mayWrite())) return;
  retry.disabled = true;
  retry.textContent = "Waiting to be processed …";
  try {
    await ask(`/images/${id}/retry`, { method: "POST" });
  } catch (error) {
    retry.disabled = false;
    retry.textContent = "Try again";
    retry.insertAdjacentElement("afterend", note(error.message));
    return;
  }
  say("It is tried again.");
  document.getElementById("state").className = "state pending";
  document.getElementById("state").textContent = "Waiting";
  follow();
});

function note(text) {
  const made = document.createElement("p");
  made.className = "problem";
  made.setAttribute("role", "alert");
  made.textContent = text;
  return made;
}

if (state === "pending") follow();

document.addEventListener("keydown", (event) => {
  if (isTyping(event) || event.shiftKey) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const link = rel && document.querySelector(`.neighbours a[rel=${rel}]`);
  if (link) link.click();
});
