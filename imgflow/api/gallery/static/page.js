// What every page has: signing in and out, and keys.

import { begin, end, may, refresh, say } from "./session.js";

const dialog = document.getElementById("sign-in-dialog");
const form = document.getElementById("sign-in-form");
const problem = document.getElementById("sign-in-problem");
const signIn = document.getElementById("sign-in");
const signOut = document.getElementById("sign-out");

function show() {
  signIn.hidden = may("write");
  if (may("write")) signOut.hidden = false;
}

/** Ask for a token; resolves to whether there is a session that may change something now. */
export function askForToken() {
  problem.textContent = "";
  form.reset();
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "signed in"), { once: true });
  });
}

/** Make sure that the caller may change something, by asking for a token where that is needed. */
export async function mayWrite() {
  if (may("write") || (await refresh()).has("write")) return true;
  return (await askForToken()) && may("write");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  try {
    await begin(form.token.value.trim());
  } catch (error) {
    problem.textContent = error.message;
    form.token.focus();
    form.token.select();
    return;
  }
  show();
  say("Signed in.");
  dialog.close("signed in");
});

document.getElementById("sign-in-cancel").addEventListener("click", () => dialog.close("canceled"));
dialog.addEventListener("cancel", () => { dialog.returnValue = "canceled"; });
signIn.addEventListener("click", async () => {
  const before = may("read");
  if ((await askForToken()) && !before) location.reload();
});
signOut.addEventListener("click", async () => {
  await end();
  location.reload();
});

// The session may have begun in another tab while reading needs none.
if (may("read")) refresh().then(show);

/** Whether a key that was pressed is meant for what has the focus. */
export function isTyping(event) {
  return event.altKey || event.ctrlKey || event.metaKey || dialog.open ||
    event.target.closest("input, select, textarea, [role=application]") !== null;
}

document.addEventListener("keydown", (event) => {
  const search = document.getElementById("q");
  if (event.key !== "/" || search === null || isTyping(event)) return;
  event.preventDefault();
  search.focus();
  search.select();
});

// A picture that is gone is told from one that is still loading.
document.addEventListener("error", (event) => {
  if (event.target instanceof HTMLImageElement) event.target.classList.add("lost");
}, true);
