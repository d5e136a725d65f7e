// What becomes of images that wait: their cards are asked for again, all in one request.

import { ask } from "./session.js";

const FIRST_PAUSE = 700;
const LONGEST_PAUSE = 8000;
const MOST_IDS = 100;

const watched = new Map();
let pause = FIRST_PAUSE;
let timer = null;

/** Call back with the new card of an image each time its state is another. */
export function watch(id, state, callback) {
  watched.set(String(id), { state, callback });
  pause = FIRST_PAUSE;
  schedule();
}

export const forget = (id) => watched.delete(String(id));

/** The cards in a text that the server rendered. */
export function cardsIn(text) {
  const page = new DOMParser().parseFromString(`<ul>${text}</ul>`, "text/html");
  return [...page.querySelectorAll(".card")].map((card) => document.importNode(card, true));
}

function schedule() {
  clearTimeout(timer);
  if (watched.size > 0) timer = setTimeout(look, pause);
}

async function look() {
  if (document.hidden) return; // goes on when the page is seen again
  const ids = [...watched.keys()].slice(0, MOST_IDS);
  pause = Math.min(pause * 1.2, LONGEST_PAUSE);
  try {
    const answer = await ask(`/gallery/cards?ids=${ids.join(",")}`);
    for (const card of cardsIn(await answer.text())) told(card);
    // Those that are asked for next time are others, where there are many.
    if (watched.size > MOST_IDS) for (const id of ids) rotate(id);
  } catch (error) {
    if (error.status === 401 || error.status === 403) return watched.clear();
  }
  schedule();
}

function told(card) {
  const { id, state } = card.dataset;
  const known = watched.get(id);
  if (known === undefined || known.state === state) return;
  known.state = state;
  pause = FIRST_PAUSE;
  if (state !== "pending") watched.delete(id);
  known.callback(card, state);
}

function rotate(id) {
  const known = watched.get(id);
  if (known === undefined) return;
  watched.delete(id);
  watched.set(id, known);
}

document.addEventListener("visibilitychange", () => {
  pause = FIRST_PAUSE;
  if (!document.hidden) schedule();
});
