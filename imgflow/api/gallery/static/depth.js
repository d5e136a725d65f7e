// The depth viewer: the rows between two depths in colours, and the numbers behind them.

import { ask, root } from "./session.js";
import { Scale } from "./depths.js";
import { drawHistogram } from "./histogram.js";
import { parseNpy, shortest } from "./npy.js";

const PAUSE = 90; // of the slider, before a frame is asked for
const FIRST_ROWS = 400; // shown at first of a taller image
const MOST_ROWS = 4000; // at once: 2.4 MB of numbers at a width of 150
const TICKS = 5;
const UNEVEN = 1.01;

const $ = (id) => document.getElementById(id);
const viewer = $("viewer");
const { id } = viewer.dataset;
const number = (name) => Number(viewer.dataset[name]);
const scale = new Scale({
  rows: number("rows"), min: number("depthMin"), max: number("depthMax"), step: number("step"),
});
// Where depths are uneven, what stands between the first and the last row of a frame is estimated.
const isUneven = number("duplicates") > 0 || number("largestStep") > number("step") * UNEVEN;

let shown = null; // the frame that is seen: rows, columns, values, first and last depth
let cursor = null; // row and column
let asking = null;
let timer = null;

const from = $("from");
const to = $("to");

function setWindow(first, last, { keep = "from" } = {}) {
  const most = scale.stepsOf(MOST_ROWS);
  first = Math.max(0, Math.min(first, scale.steps));
  last = Math.max(0, Math.min(last, scale.steps));
  if (last < first) [first, last] = keep === "from" ? [first, first] : [last, last];
  if (last - first > most) {
    if (keep === "from") last = first + most;
    else first = last - most;
  }
  from.value = first;
  to.value = last;
  const texts = [scale.depth(first), scale.depth(last)];
  $("depth-min").value = texts[0];
  $("depth-max").value = texts[1];
  drawWindow(first / scale.steps, last / scale.steps);
  soon();
}

function drawWindow(top, bottom) {
  from.setAttribute("aria-valuetext", $("depth-min").value);
  to.setAttribute("aria-valuetext", $("depth-max").value);
  for (const place of [$("range"), $("window")]) {
    place.style.setProperty("--from", top);
    place.style.setProperty("--to", bottom);
  }
}

/** Typed depths are taken as they are, between the steps too. */
function typed() {
  const [low, high] = [$("depth-min"), $("depth-max")].map((field) => Number(field.value.replace(",", ".")));
  if (!Number.isFinite(low) || !Number.isFinite(high)) return fail("A depth is a decimal number.");
  from.value = scale.step(low);
  to.value = scale.step(high);
  drawWindow(Number(from.value) / scale.steps, Number(to.value) / scale.steps);
  soon();
}

function move(direction) {
  const height = Math.max(1, Number(to.value) - Number(from.value));
  const room = direction > 0 ? scale.steps - Number(to.value) : Number(from.value);
  const by = direction * Math.min(height, room);
  setWindow(Number(from.value) + by, Number(to.value) + by);
}

const colormap = () => $("colormap").value + ($("reversed").checked ? "_r" : "");

function query(values) {
  const parameters = new URLSearchParams();
  parameters.set("depth_min", $("depth-min").value.trim().replace(",", "."));
  parameters.set("depth_max", $("depth-max").value.trim().replace(",", "."));
  for (const [name, value] of Object.entries(values)) if (value) parameters.set(name, value);
  return parameters.toString();
}

function soon() {
  clearTimeout(timer);
  viewer.setAttribute("aria-busy", "true");
  timer = setTimeout(show, PAUSE);
}

function fail(text) {
  $("viewer-problem").textContent = text;
  viewer.setAttribute("aria-busy", "false");
}

/** Ask for the numbers, then for the picture of the same rows. */
async function show() {
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  try {
    const answer = await ask(`/image/${id}?${query({ format: "npy" })}`, { signal: mine.signal });
    const array = parseNpy(await answer.arrayBuffer());
    const depths = ["X-Imgflow-Depth-First", "X-Imgflow-Depth-Last"].map((name) => Number(answer.headers.get(name)));
    const range = rangeOf(array.values, answer.headers.get("X-Imgflow-Value-Range"));
    const look = { colormap: colormap(), rescale: $("stretched").checked ? range.join(",") : "" };
    const picture = await ask(`/image/${id}?${query({ ...look, format: "png" })}`, { signal: mine.signal });
    await showPicture(await picture.blob());
    if (mine.signal.aborted) return;
    shown = { ...array, first: depths[0], last: depths[1] };
    $("viewer-problem").textContent = "";
    drawAxis();
    drawLegend(range);
    offerDownloads(look);
    remember();
    if (cursor !== null) point(cursor.row, cursor.column);
    await showStatistics(mine.signal);
    viewer.setAttribute("aria-busy", "false");
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
  }
}

function rangeOf(values, whole) {
  if (!$("stretched").checked) return whole.split(",").map(Number);
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low < high ? [low, high] : [low, low + 1];
}

async function showPicture(blob) {
  const next = new Image();
  next.src = URL.createObjectURL(blob);
  await next.decode();
  const frame = $("frame");
  const old = frame.src;
  frame.src = next.src;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

function drawAxis() {
  const ticks = Math.min(TICKS, shown.rows);
  $("axis").replaceChildren(...Array.from({ length: ticks }, (_, at) => {
    const part = ticks === 1 ? 0 : at / (ticks - 1);
    const tick = document.createElement("span");
    tick.textContent = scale.text(shown.first + (shown.last - shown.first) * part);
    return tick;
  }));
}

function drawLegend([low, high]) {
  const legend = $("legend");
  const ends = [low, high].map((value) => String(Number(value.toPrecision(9))));
  legend.src = `${root}/colormaps/${colormap()}?low=${ends[0]}&high=${ends[1]}&width=320`;
  legend.alt = `Legend: colours from ${ends[0]} to ${ends[1]}`;
}

function offerDownloads(look) {
  for (const link of viewer.querySelectorAll("a[data-format]")) {
    const { format } = link.dataset;
    link.href = `${root}/image/${id}?${query({ ...(format === "npy" ? {} : look), format })}`;
    link.download = `image-${id}_${$("depth-min").value}-${$("depth-max").value}.${format === "jpeg" ? "jpg" : format}`;
  }
}

/** Keep what is shown in the address, so that it can be sent to someone. */
function remember() {
  const address = new URL(location.href);
  const values = { depth_min: $("depth-min").value, depth_max: $("depth-max").value, colormap: colormap() };
  for (const [name, value] of Object.entries(values)) address.searchParams.set(name, value);
  history.replaceState(null, "", address);
}

async function showStatistics(signal) {
  const found = await (await ask(`/depth/${id}/statistics?${query({ bins: "64" })}`, { signal })).json();
  const short = (value) => String(Number(value.toPrecision(5)));
  const numbers = [["Rows", found.rows.toLocaleString("en")], ["Min", short(found.min)], ["Mean", short(found.mean)],
    ["Std dev", short(found.std)], ["Max", short(found.max)]];
  drawHistogram($("histogram"), found.histogram, `Histogram of ${found.count} values from ${short(found.min)} to ${short(found.max)}`);
  $("statistics").replaceChildren(...numbers.map(([term, text]) => {
    const pair = document.createElement("div");
    pair.append(Object.assign(document.createElement("dt"), { textContent: term }),
      Object.assign(document.createElement("dd"), { textContent: text }));
    return pair;
  }));
}

/** Say the value of a row and a column of the frame. */
function point(row, column) {
  if (shown === null) return;
  row = Math.max(0, Math.min(shown.rows - 1, row));
  column = Math.max(0, Math.min(shown.columns - 1, column));
  cursor = { row, column };
  const depth = shown.rows === 1 ? shown.first : shown.first + ((shown.last - shown.first) * row) / (shown.rows - 1);
  const isExact = !isUneven || row === 0 || row === shown.rows - 1;
  const value = shortest(shown.values[row * shown.columns + column]);
  const readout = $("readout");
  Object.assign(readout.dataset, { row, column, value });
  readout.textContent = `Depth ${isExact ? "" : "≈ "}${scale.text(depth)} · column ${column + 1} of ${shown.columns} · value ${value}`;
  const cross = $("cross");
  cross.hidden = false;
  cross.style.setProperty("--x", (column + 0.5) / shown.columns);
  cross.style.setProperty("--y", (row + 0.5) / shown.rows);
}

const stage = $("stage");
function pointed(event) {
  if (shown === null) return;
  const box = $("frame").getBoundingClientRect();
  point(Math.floor(((event.clientY - box.top) / box.height) * shown.rows),
    Math.floor(((event.clientX - box.left) / box.width) * shown.columns));
}
stage.addEventListener("pointermove", pointed);
stage.addEventListener("pointerdown", pointed); // a finger does not hover
stage.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const { row, column } = cursor ?? { row: 0, column: -1 };
  const far = event.shiftKey ? 10 : 1;
  const actions = {
    ArrowUp: () => point(row - far, column),
    ArrowDown: () => point(row + far, column),
    ArrowLeft: () => point(row, column - far),
    ArrowRight: () => point(row, column + far),
    Home: () => point(row, 0),
    End: () => point(row, Infinity),
    PageUp: () => move(-1),
    PageDown: () => move(1),
  };
  if (actions[event.key] === undefined) return;
  event.preventDefault();
  actions[event.key]();
});

// The overview takes its place by depth: a drag moves what is shown, as the sliders do.
const overview = $("overview");
function drag(event) {
  const box = overview.getBoundingClientRect();
  const height = Number(to.value) - Number(from.value);
  const middle = Math.round(((event.clientY - box.top) / box.height) * scale.steps);
  const first = Math.max(0, Math.min(scale.steps - height, middle - Math.round(height / 2)));
  setWindow(first, first + height);
}
overview.addEventListener("pointerdown", (event) => {
  overview.setPointerCapture(event.pointerId);
  drag(event);
});
overview.addEventListener("pointermove", (event) => {
  if (overview.hasPointerCapture(event.pointerId)) drag(event);
});

for (const slider of [from, to]) {
  slider.min = 0;
  slider.max = scale.steps;
  slider.step = 1;
  slider.disabled = false;
}
from.addEventListener("input", () => setWindow(Number(from.value), Math.max(Number(from.value), Number(to.value))));
to.addEventListener("input", () => setWindow(Math.min(Number(from.value), Number(to.value)), Number(to.value), { keep: "to" }));
for (const name of ["depth-min", "depth-max"]) $(name).addEventListener("change", typed);
for (const name of ["colormap", "reversed", "stretched"]) $(name).addEventListener("change", soon);
$("shallower").addEventListener("click", () => move(-1));
$("deeper").addEventListener("click", () => move(1));
$("controls").addEventListener("submit", (event) => { event.preventDefault(); typed(); });

if (viewer.dataset.isChosen) typed();
else setWindow(0, scale.stepsOf(FIRST_ROWS));
