// The grid: further pages by scrolling, arrow keys from card to card, cards that follow their state.

import { ask, say } from "./session.js";
import { isTyping } from "./page.js";
import { watch } from "./watching.js";

const grid = document.getElementById("grid");

/** Show a card in place of the one of the same image. */
export function replace(card) {
  const old = grid.querySelector(`[data-id="${card.dataset.id}"]`);
  if (old === null) return;
  const hadFocus = old.contains(document.activeElement);
  old.replaceWith(card);
  if (hadFocus) card.querySelector("a").focus();
}

/** Show the card of an image that has just arrived, or arrived again. */
export function arrive(card) {
  document.getElementById("nothing")?.remove();
  if (grid.querySelector(`[data-id="${card.dataset.id}"]`)) replace(card);
  else grid.prepend(card);
  follow(card);
}

function follow(card) {
  if (card.dataset.state === "pending") watch(card.dataset.id, "pending", replace);
}

async function showMore(link) {
  if (link.getAttribute("aria-busy") === "true") return;
  link.setAttribute("aria-busy", "true");
  const path = link.getAttribute("href").slice(document.documentElement.dataset.root.length);
  try {
    const text = await (await ask(path)).text();
    const page = new DOMParser().parseFromString(text, "text/html");
    const cards = [...page.querySelectorAll("#grid > .card")]
      .filter((card) => !grid.querySelector(`[data-id="${card.dataset.id}"]`))
      .map((card) => document.importNode(card, true));
    grid.append(...cards);
    cards.forEach(follow);
    say(`${cards.length} more images`);
    const next = page.getElementById("more");
    if (next === null) link.remove();
    else link.href = next.getAttribute("href");
    if (document.activeElement === link || !document.contains(document.activeElement)) {
      cards[0]?.querySelector("a").focus({ preventScroll: true });
    }
    link.removeAttribute("aria-busy");
    observe();
  } catch (error) {
    link.removeAttribute("aria-busy");
    link.textContent = `${error.message} Try again`;
  }
}

let observer = null;

/** Look anew whether the link is near: after a short page it still is. */
function observe() {
  observer?.disconnect();
  const link = document.getElementById("more");
  if (link === null) return;
  observer = new IntersectionObserver(
    (entries) => { if (entries.some((entry) => entry.isIntersecting)) showMore(link); },
    { rootMargin: "600px" },
  );
  observer.observe(link);
}

function columns(links) {
  const top = links[0].getBoundingClientRect().top;
  const count = links.findIndex((link) => link.getBoundingClientRect().top > top + 4);
  return count < 0 ? links.length : count;
}

document.addEventListener("keydown", (event) => {
  if (isTyping(event) || event.shiftKey) return;
  const links = [...grid.querySelectorAll(".card > a")];
  if (links.length === 0) return;
  const at = links.indexOf(document.activeElement);
  if (at < 0) return;
  const steps = {
    ArrowRight: () => at + 1,
    ArrowLeft: () => at - 1,
    ArrowDown: () => at + columns(links),
    ArrowUp: () => at - columns(links),
    Home: () => 0,
    End: () => links.length - 1,
  };
  const step = steps[event.key];
  if (step === undefined) return;
  event.preventDefault();
  links[Math.max(0, Math.min(links.length - 1, step()))].focus();
});

document.getElementById("more")?.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  showMore(event.currentTarget);
});

grid.querySelectorAll(".card").forEach(follow);
observe();
