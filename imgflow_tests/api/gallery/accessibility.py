"""What a person who does not see, or not well, needs of a page; looked for in the page itself."""

from __future__ import annotations

from playwright.sync_api import Page

CHECK = """
() => {
  const faults = [];
  const seen = (e) => e.checkVisibility({ visibilityProperty: true })
    && !e.closest("[aria-hidden=true]");
  const path = (e) => `${e.tagName.toLowerCase()}#${e.id}.${e.className}`;
  const named = (e) => [e.getAttribute("aria-label"), e.title, e.textContent.trim(),
    ...[...e.querySelectorAll("img")].map((i) => i.alt),
    ...(e.labels ? [...e.labels].map((l) => l.textContent.trim()) : []),
    ...(e.getAttribute("aria-labelledby") ?? "").split(" ")
      .map((id) => document.getElementById(id)?.textContent),
  ].some(Boolean);
  const fields = "input:not([type=hidden]), select";
  for (const e of document.querySelectorAll(`a, button, dialog, nav, section, ${fields}`)) {
    if (!named(e)) faults.push(`has no name: ${path(e)}`);
  }
  for (const e of document.querySelectorAll(fields)) {
    if (!e.labels?.length && !e.getAttribute("aria-label")) faults.push(`has no label: ${path(e)}`);
  }
  for (const e of document.querySelectorAll("img")) {
    if (!e.hasAttribute("alt")) faults.push(`no alt: ${path(e)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`twice: #${id}`);
  if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
  if (!document.documentElement.lang) faults.push("no lang");
  if (!document.title.trim()) faults.push("no title");
  for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby]")) {
    for (const name of ["aria-labelledby", "aria-describedby"]) {
      for (const id of (e.getAttribute(name) ?? "").split(" ").filter(Boolean)) {
        if (!document.getElementById(id)) faults.push(`${name} leads nowhere: ${path(e)}`);
      }
    }
  }

  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => [r, g, b]
    .map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let contrasts = 0;
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    const text = texts.currentNode.data.trim();
    if (!text || !seen(e) || e.closest("script, option, noscript")) continue;
    const pair = [luminance(rgba(getComputedStyle(e).color)), luminance(ground(e))];
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    contrasts += 1;
    if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)}: ${path(e)} ${text}`);
  }
  if (contrasts < 5) faults.push("hardly any text was looked at");
  return faults;
}
"""


def check_accessibility(page: Page) -> None:
    """Names, labels, texts of pictures, headings, references, and contrast of 4.5 (WCAG AA)."""
    assert page.evaluate(CHECK) == []


def check_width(page: Page) -> None:
    """Nothing is wider than the window."""
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
