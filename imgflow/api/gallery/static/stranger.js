// The page of who may not read. Browsers leave the cookie out when a link of another site leads here;
// our own request has it, so whoever is signed in gets the page that the link named.

import { may, refresh } from "./session.js";

const TRIED = "imgflow-tried";
const wanted = document.querySelector("input[name=wanted]").value;

const tried = Number(sessionStorage.getItem(TRIED) ?? 0);
if (Date.now() - tried > 5000) {
  sessionStorage.setItem(TRIED, String(Date.now()));
  await refresh();
  if (may("read")) location.replace(wanted);
}
