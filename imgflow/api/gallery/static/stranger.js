// The page of who may not read: signs in, and shows what was asked for.

import { may, refresh } from "./session.js";
import { askForToken } from "./page.js";

const TRIED = "imgflow-tried";

async function show() {
  if (may("read")) location.replace(location.href);
}

// Browsers leave the cookie out when a link of another site leads here; our own request has it.
const tried = Number(sessionStorage.getItem(TRIED) ?? 0);
if (Date.now() - tried > 5000) {
  sessionStorage.setItem(TRIED, String(Date.now()));
  await refresh();
  await show();
}

async function signIn() {
  if (await askForToken()) await show();
}

document.getElementById("sign-in-here").addEventListener("click", signIn);
if (!may("read")) signIn();
