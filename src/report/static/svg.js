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

/** Axes from 0 to 1 both ways: {root, x, y, add}, where x and y turn values into places; words for those who hear. */
function plot({ title, words, xLabel, yLabel }) {
  const [width, height, left, right, top, bottom] = [230, 190, 42, 10, 8, 36];
  const frame = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}. ${words}`, class: "plot" };
  const root = shape("svg", frame, shape("title", {}, title), shape("desc", {}, words));
  const x = (value) => left + value * (width - left - right);
  const y = (value) => height - bottom - value * (height - top - bottom);
  for (const tick of [0, 0.5, 1]) {
    root.append(line(x(0), y(tick), x(1), y(tick), "grid"));
    root.append(shape("text", { x: left - 6, y: y(tick) + 3.5, "text-anchor": "end" }, String(tick)));
    root.append(line(x(tick), y(0), x(tick), y(0) + 4, "axis"));
    root.append(shape("text", { x: x(tick), y: height - bottom + 15, "text-anchor": "middle" }, String(tick)));
  }
  root.append(line(x(0), y(0), x(1), y(0), "axis"));
  root.append(shape("text", { x: x(1), y: height - 5, "text-anchor": "end" }, xLabel));
  const upright = { x: -y(1), y: 11, transform: "rotate(-90)", "text-anchor": "end" };
  root.append(shape("text", upright, yLabel));
  return { root, x, y, add: (...nodes) => root.append(...nodes) };
}

function line(x1, y1, x2, y2, look) {
  return shape("line", { x1, y1, x2, y2, class: look });
}

/** A line through points [x, y] in drawing units. */
function path(points, look) {
  const steps = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`);
  return shape("path", { d: steps.join(""), class: look });
}

function diamond(x, y, size = 5.5) {
  return `M${x - size} ${y}L${x} ${y - size}L${x + size} ${y}L${x} ${y + size}Z`;
}

/** Names of looks: items are [class, text, "line", "circle" or "diamond"]. */
function legend(node, items) {
  for (const [look, text, kind] of items) {
    const swatch = shape("svg", { viewBox: "0 0 16 12", class: "swatch", "aria-hidden": "true" });
    if (kind === "line") swatch.append(line(0, 6, 16, 6, look));
    else if (kind === "circle") swatch.append(shape("circle", { cx: 8, cy: 6, r: 3.6, class: look }));
    else swatch.append(shape("path", { d: diamond(8, 6, 4.5), class: look }));
    node.append(element("span", {}, swatch, text));
  }
}
