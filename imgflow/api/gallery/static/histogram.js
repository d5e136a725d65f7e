// A histogram as an SVG path, with its numbers beside it.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 40;

export function drawHistogram(place, counts, label) {
  const most = Math.max(1, ...counts);
  const bars = counts.map((count, at) => {
    const height = count === 0 ? 0 : Math.max(0.7, (HEIGHT * count) / most);
    return `M${at} ${HEIGHT}v${-height}h1v${height}z`;
  });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${counts.length} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", bars.join(""));
  svg.append(path);
  place.replaceChildren(svg);
}
