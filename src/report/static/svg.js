// Elements, and plots drawn as SVG. Text enters the page through text nodes and attributes only.

/** An HTML element; children are nodes or texts. */
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** An SVG drawing with a title and a description for those who hear it. */
function drawing(width, height, title, description = "", attributes = {}) {
  const frame = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}. ${description}` };
  return shape("svg", { ...frame, ...attributes }, shape("title", {}, title), shape("desc", {}, description));
}

/** Up to about `most` round numbers from low to high. */
function roundTicks(low, high, most = 5) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

/**
 * Axes over `xRange` x `yRange`: {root, x, y, add}, where x and y turn values into places.
 * `margins` are left, right, top and bottom, in the units of the drawing.
 */
function plot({ width, height, xRange, yRange, xTicks, yTicks, xLabel, yLabel, title, description }) {
  const [left, right, top, bottom] = [42, 10, 8, xLabel ? 36 : 22];
  const root = drawing(width, height, title, description, { class: "plot" });
  const x = (value) => left + ((value - xRange[0]) / (xRange[1] - xRange[0])) * (width - left - right);
  const y = (value) => height - bottom - ((value - yRange[0]) / (yRange[1] - yRange[0])) * (height - top - bottom);
  for (const tick of yTicks) {
    root.append(line(x(xRange[0]), y(tick), x(xRange[1]), y(tick), "grid"));
    root.append(shape("text", { x: left - 6, y: y(tick) + 3.5, "text-anchor": "end" }, String(tick)));
  }
  for (const tick of xTicks) {
    root.append(line(x(tick), y(yRange[0]), x(tick), y(yRange[0]) + 4, "axis"));
    root.append(shape("text", { x: x(tick), y: height - bottom + 15, "text-anchor": "middle" }, String(tick)));
  }
  root.append(line(x(xRange[0]), y(yRange[0]), x(xRange[1]), y(yRange[0]), "axis"));
  if (xLabel) root.append(shape("text", { x: x(xRange[1]), y: height - 5, "text-anchor": "end" }, xLabel));
  if (yLabel) root.setAttribute("aria-label", `${title}: ${yLabel}. ${description}`);
  return { root, x, y, add: (...nodes) => root.append(...nodes) };
}

function line(x1, y1, x2, y2, look) {
  return shape("line", { x1, y1, x2, y2, class: look });
}

/** A line through points [x, y] in drawing units; a missing point breaks it. */
function path(points, look) {
  let pen = "M";
  const steps = [];
  for (const [x, y] of points) {
    if (Number.isFinite(x) && Number.isFinite(y)) {
      steps.push(`${pen}${x.toFixed(1)} ${y.toFixed(1)}`);
      pen = "L";
    } else pen = "M";
  }
  return shape("path", { d: steps.join(""), class: look });
}

/** A marker at (x, y): "diamond" or "circle"; look is its class. */
function marker(kind, x, y, look, size = 4.5) {
  if (kind === "circle") return shape("circle", { cx: x, cy: y, r: size * 0.8, class: look });
  return shape("path", { d: diamond(x, y, size), class: look });
}

function diamond(x, y, size = 5.5) {
  return `M${x - size} ${y}L${x} ${y - size}L${x + size} ${y}L${x} ${y + size}Z`;
}

/** Parts of a whole side by side: parts are {share, look}; a part of 0 is left out. */
function stackedBar(parts, title, { width = 150, height = 12 } = {}) {
  const words = parts.map((part) => `${part.label} ${part.text}`).join(", ");
  const root = drawing(width, height, title, words, { class: "bar", preserveAspectRatio: "none" });
  root.append(shape("rect", { x: 0, y: 0, width, height, class: "rest" }));
  let from = 0;
  for (const part of parts) {
    const wide = width * (part.share || 0);
    if (wide > 0) root.append(shape("rect", { x: from, y: 0, width: wide, height, class: part.look }));
    from += wide;
  }
  return root;
}

/** Names of looks: items are [class, text] with a swatch, or [class, text, marker kind]. */
function legend(node, items) {
  for (const [look, text, kind] of items) {
    const swatch = shape("svg", { viewBox: "0 0 16 12", class: "swatch", "aria-hidden": "true" });
    if (kind === "line") swatch.append(line(0, 6, 16, 6, look));
    else if (kind) swatch.append(marker(kind, 8, 6, look));
    else swatch.append(shape("rect", { width: 16, height: 12, class: look }));
    node.append(element("span", {}, swatch, text));
  }
}
